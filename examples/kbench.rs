//! scratch bench
use std::time::Instant;
use vkhmm::{
    Grid, Runtime,
    kernels::{self, Mat},
};
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let n: usize = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(512);
    let rt = Runtime::builder().build()?;
    let gemm = unsafe { rt.kernel(include_bytes!("../shaders/spv/gemm.spv"))? };
    let mut a = rt.alloc::<f32>(n * n)?;
    let mut b = rt.alloc::<f32>(n * n)?;
    let mut c = rt.alloc::<f32>(n * n)?;
    for i in 0..n * n {
        a[i] = (i % 17) as f32;
        b[i] = (i % 13) as f32;
    }
    let mut t = vec![Vec::new(); 6];
    for _ in 0..9 {
        let s = Instant::now();
        let u = n as u32;
        rt.launch(
            &gemm,
            Grid::linear(n.div_ceil(8) * n.div_ceil(4)),
            (a.read(), b.read(), c.overwrite(), [u, u, u, u, u, u, 0]),
        )?
        .wait()?;
        t[0].push(s.elapsed().as_secs_f64());
        for (v, (ta, tb)) in
            [(false, false), (true, false), (false, true), (true, true)].into_iter().enumerate()
        {
            let s = Instant::now();
            let x = Mat::new(a.read(), n, n);
            let x = if ta { x.t() } else { x };
            let y = Mat::new(b.read(), n, n);
            let y = if tb { y.t() } else { y };
            kernels::gemm(&rt, 1.0, x, y, 0.0, Mat::new(c.overwrite(), n, n))?.wait()?;
            t[1 + v].push(s.elapsed().as_secs_f64());
        }
        let s = Instant::now();
        kernels::syrk(&rt, 1.0, Mat::new(a.read(), n, n), 1.0, Mat::new(c.write(), n, n))?.wait()?;
        t[5].push(s.elapsed().as_secs_f64());
    }
    for (name, mut t) in ["gemm.comp", "NN", "TN", "NT", "TT", "syrk"].iter().zip(t) {
        t.sort_by(f64::total_cmp);
        println!("{name:10} {:.1} ms  {:.2} GFLOP/s", t[4] * 1e3, 2.0 * (n * n * n) as f64 / t[4] / 1e9);
    }
    Ok(())
}
