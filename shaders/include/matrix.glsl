// Checks that a row-major matrix lies inside its buffer, so that a kernel with wrong sizes does nothing instead of harm.

// Whether rows x cols elements at a distance of `stride` elements per row fit `length` elements, without two rows sharing one.
bool matrix_fits(uint rows, uint cols, uint stride, uint length) {
    if (rows == 0u || cols == 0u) {
        return true;
    }
    uint high, low;
    umulExtended(rows - 1u, stride, high, low);
    bool rows_apart = rows == 1u || cols <= stride;
    return rows_apart && high == 0u && low <= length && cols <= length - low;
}

// How many tiles of `size` cover `count`.
uint tiles(uint count, uint size) {
    return count / size + (count % size == 0u ? 0u : 1u);
}
