//! What this machine offers vkhmm, and what would enable more: `./x doctor`.

fn main() -> std::process::ExitCode {
    match vkhmm::Runtime::builder().build() {
        Ok(rt) => {
            println!("{}", rt.doctor());
            std::process::ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("vkhmm cannot run here: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
