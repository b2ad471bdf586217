//! A picture to work on where there is none: a lake before mountains, in the evening, with the grain of a film.

use super::picture::{Picture, byte};

/// A number between 0 and 1 for each point of a grid.
fn hash(x: i32, y: i32, seed: u32) -> f32 {
    let mut h = (x as u32).wrapping_mul(0x9e37_79b1)
        ^ (y as u32).wrapping_mul(0x85eb_ca6b)
        ^ seed.wrapping_mul(0xc2b2_ae35);
    h = (h ^ (h >> 15)).wrapping_mul(0x2c1b_3c6d);
    h = (h ^ (h >> 12)).wrapping_mul(0x297a_2d39);
    (h ^ (h >> 15)) as f32 / u32::MAX as f32
}

/// Smooth noise, about 0.5.
fn noise(x: f32, y: f32, seed: u32) -> f32 {
    let (left, top) = (x.floor(), y.floor());
    let ease = |t: f32| t * t * (3.0 - 2.0 * t);
    let (u, v) = (ease(x - left), ease(y - top));
    let at = |dx: i32, dy: i32| hash(left as i32 + dx, top as i32 + dy, seed);
    let across = |dy: i32| at(0, dy) * (1.0 - u) + at(1, dy) * u;
    across(0) * (1.0 - v) + across(1) * v
}

/// Noise of several sizes, each half as large and half as strong as the one before.
fn rough(x: f32, y: f32, octaves: u32, seed: u32) -> f32 {
    (0..octaves).map(|o| noise(x * (1 << o) as f32, y * (1 << o) as f32, seed + o) / (2 << o) as f32).sum()
}

fn mix(a: [f32; 3], b: [f32; 3], part: f32) -> [f32; 3] {
    let part = part.clamp(0.0, 1.0);
    [0, 1, 2].map(|c| a[c] * (1.0 - part) + b[c] * part)
}

/// The colour at a point: x from 0 to the picture's width over its height, y from 0 (top) to 1.
fn colour(x: f32, y: f32) -> [f32; 3] {
    const SHORE: f32 = 0.66;
    if y > SHORE {
        // The lake mirrors what is above, in ripples that grow towards the beholder.
        let near = (y - SHORE) / (1.0 - SHORE);
        let ripple = (rough(x * 9.0, 140.0 * near.sqrt(), 3, 50) - 0.45) * (0.02 + 0.09 * near);
        let mirrored = colour(x + ripple * 0.4, (SHORE - (y - SHORE) * 1.4 + ripple).clamp(0.0, SHORE));
        return mix(mirrored, [0.03, 0.09, 0.16], 0.25 + 0.35 * near);
    }
    for (ridge, base, height, size, shade) in [
        (3, 0.70, 0.16, 5.0, [0.05, 0.09, 0.10]),
        (2, 0.62, 0.26, 3.0, [0.13, 0.18, 0.26]),
        (1, 0.52, 0.34, 1.7, [0.30, 0.33, 0.45]),
    ] {
        let top = base - height * rough(x * size + 7.0 * ridge as f32, 0.5, 8, 10 * ridge);
        if y > top {
            // Rock, snow on the high ones, haze towards the foot.
            let rock = rough(x * 30.0, y * 60.0, 5, 70 + ridge);
            let snow =
                if ridge < 3 { ((top + 0.05 - y) * 30.0 + (rock - 0.5) * 6.0).clamp(0.0, 1.0) } else { 0.0 };
            let stone = shade.map(|c| c * (0.6 + 0.9 * rock));
            let haze = ((y - top) / (SHORE - top + 0.01)) * (0.75 - 0.2 * ridge as f32);
            return mix(mix(stone, [0.95, 0.86, 0.84], snow * 0.8), [0.80, 0.62, 0.55], haze);
        }
    }
    let sky = mix([0.12, 0.22, 0.45], [0.98, 0.72, 0.45], (y / 0.55).powf(1.3));
    let far = ((x - 1.05).powi(2) + (y - 0.40).powi(2)).sqrt();
    let sun = if far < 0.035 { 1.0 } else { 0.5 * (-(far - 0.035) * 9.0).exp() };
    let cloud = ((rough(x * 2.2 + 3.0, y * 9.0, 7, 30) - 0.50) * 5.0).clamp(0.0, 0.8);
    mix(mix(sky, [0.93, 0.70, 0.66], cloud * (1.0 - y)), [1.0, 0.95, 0.80], sun)
}

/// The picture, of any size.
pub(crate) fn evening(width: usize, height: usize) -> Picture {
    let point = |i: usize| {
        let (x, y) = (i % width, i / width);
        let grain = (hash(x as i32, y as i32, 99) - 0.5) * 0.04;
        colour(x as f32 / height as f32, y as f32 / height as f32).map(|c| byte(c + grain))
    };
    Picture { width, height, channels: 3, bytes: (0..width * height).flat_map(point).collect() }
}
