//! Compiles `shaders/*.comp` to `shaders/spv/*.spv` and writes the manifest; with `--check` compiles in memory and compares.
//!
//! The compiler is pinned, and only this program writes the modules: the same source gives the same bytes everywhere.

mod manifest;

use anyhow::{Context, Result, bail};
use clap::Parser;
use glslang::include::{IncludeHandler, IncludeResult, IncludeType};
use glslang::{
    Compiler, CompilerOptions, ShaderInput, ShaderMessage, ShaderSource, ShaderStage, SourceLanguage,
    SpirvVersion, Target, VulkanVersion,
};
use std::path::{Path, PathBuf};

/// Compiles the shaders of vkhmm.
#[derive(Parser)]
struct Arguments {
    /// Write nothing; fail if a committed module differs from what the compiler makes of its source.
    #[arg(long)]
    check: bool,
    /// The folder of the shaders.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.."))]
    shaders: PathBuf,
}

fn main() -> Result<()> {
    let Arguments { check, shaders } = Arguments::parse();
    let names = manifest::sources(&shaders)?;
    let mut stale = Vec::new();
    for name in &names {
        let module = compile(&shaders, name).with_context(|| format!("{name}.comp"))?;
        let path = shaders.join(format!("spv/{name}.spv"));
        if std::fs::read(&path).ok().as_ref() != Some(&module) {
            stale.push(format!("spv/{name}.spv"));
            if !check {
                std::fs::write(&path, &module).with_context(|| path.display().to_string())?;
            }
        }
    }
    for orphan in manifest::modules(&shaders)?.into_iter().filter(|module| !names.contains(module)) {
        stale.push(format!("spv/{orphan}.spv (no source)"));
        if !check {
            std::fs::remove_file(shaders.join(format!("spv/{orphan}.spv")))?;
        }
    }
    let (path, current) = (manifest::path(&shaders), manifest::current(&shaders)?);
    if std::fs::read_to_string(&path).ok().as_ref() != Some(&current) {
        stale.push("spv/manifest.txt".into());
        if !check {
            std::fs::write(&path, current).with_context(|| path.display().to_string())?;
        }
    }
    match (check, stale.is_empty()) {
        (true, false) => bail!("stale: {}; run ./x shaders and commit the result", stale.join(", ")),
        (_, true) => println!("{} shaders, all fresh", names.len()),
        (false, false) => println!("{} shaders, written: {}", names.len(), stale.join(", ")),
    }
    Ok(())
}

/// One shader as little-endian SPIR-V bytes.
fn compile(shaders: &Path, name: &str) -> Result<Vec<u8>> {
    let compiler = Compiler::acquire().context("glslang does not start")?;
    let source = ShaderSource::from(std::fs::read_to_string(shaders.join(format!("{name}.comp")))?);
    let options = CompilerOptions {
        source_language: SourceLanguage::GLSL,
        target: Target::Vulkan { version: VulkanVersion::Vulkan1_2, spirv_version: SpirvVersion::SPIRV1_5 },
        version_profile: None,
        messages: ShaderMessage::DEFAULT,
    };
    let mut includes = Includes { shaders };
    let defines: Option<&[(&str, Option<&str>)]> = None;
    let input = ShaderInput::new(&source, ShaderStage::Compute, &options, defines, Some(&mut includes))?;
    let words = compiler.create_shader(input)?.compile()?;
    Ok(words.iter().flat_map(|word| word.to_le_bytes()).collect())
}

/// Finds included files by their name relative to the shaders' folder, as the manifest does.
struct Includes<'a> {
    shaders: &'a Path,
}

impl IncludeHandler for Includes<'_> {
    fn include(&mut self, _: IncludeType, name: &str, _: &str, _: usize) -> Option<IncludeResult> {
        let data = std::fs::read_to_string(self.shaders.join(name)).ok()?;
        Some(IncludeResult { name: name.to_owned(), data })
    }
}
