//! `vkhmm-model`: plays traces on a modelled machine and prints what the engine moved against the optimum. Class M.

use std::process::ExitCode;
use std::sync::Arc;
use vkhmm_core::policy::{self, Policy};
use vkhmm_sim::model::gemm::Gemm;
use vkhmm_sim::model::paged;
use vkhmm_sim::model::table::{self, Row};
use vkhmm_sim::model::traces::{self, Recipe, Scale};
use vkhmm_sim::model::{LinkModel, PROGRAMS, Placement, Transfer, Way, presets};

const HELP: &str = "\
Plays traces on a modelled machine with the production engine, in virtual time, and prints bytes and seconds against the optimum.

usage: vkhmm-model --model NAME [options]

  --model NAME     the machine; see --list
  --trace NAME     only this trace (may be given several times)
  --ratio R        footprint over limit (several times; default 0.9, 1.5 and 4)
  --rounds N       how often a trace goes over its data (default 4)
  --limit SIZE     device memory limit, such as 512MiB or 4GiB (default 4GiB; at least 64MiB)
  --staging        through staging rings instead of imports
  --placement P    span or sparse (default: both, one after the other)
  --policy P       adaptive, plain or all (default: adaptive)
  --paged          instead of the traces: paged launches on data of 1, 2 and 4 times the limit (which is 256MiB then)
  --gemm           instead of the traces: one product of matrices four times the limit, as small as hides its copies
  --json           one JSON object a line instead of the table
  --list           machines and traces
  --help           this";

struct Options {
    model: LinkModel,
    recipes: Vec<&'static Recipe>,
    ratios: Vec<f64>,
    rounds: u32,
    limit: u64,
    transfer: Transfer,
    placements: Vec<Placement>,
    policies: Vec<Arc<dyn Policy>>,
    gemm: bool,
    paged: bool,
    json: bool,
}

enum Wish {
    Play(Box<Options>),
    Help,
    List,
}

fn main() -> ExitCode {
    match read(std::env::args().skip(1)) {
        Ok(Wish::Help) => println!("{HELP}"),
        Ok(Wish::List) => list(),
        Ok(Wish::Play(options)) => {
            if let Err(error) = play(&options) {
                eprintln!("vkhmm-model: {error}");
                return ExitCode::FAILURE;
            }
        }
        Err(error) => {
            eprintln!("vkhmm-model: {error}\n(--help says what there is)");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn play(options: &Options) -> Result<(), vkhmm_sim::model::PlayError> {
    let Options { model, limit, rounds, transfer, .. } = options;
    if options.gemm {
        return play_gemm(options);
    }
    if options.paged {
        return play_paged(options);
    }
    if !options.json {
        println!("{}", table::header(model, *limit, *rounds, *transfer));
    }
    for recipe in &options.recipes {
        for ratio in &options.ratios {
            let hinted = [false, true];
            for hints in hinted.into_iter().take(if recipe.hints { 2 } else { 1 }) {
                let scale = Scale { limit: *limit, ratio: *ratio, rounds: *rounds, hints };
                for way in options.ways() {
                    let row = Row::measure(model, recipe, &scale, &way)?;
                    println!("{}", if options.json { row.json(model) } else { row.line() });
                }
            }
        }
    }
    Ok(())
}

impl Options {
    fn ways(&self) -> Vec<Way> {
        let way = |placement: &Placement, policy: &Arc<dyn Policy>| Way {
            transfer: self.transfer,
            placement: *placement,
            policy: Arc::clone(policy),
        };
        let placements = self.placements.iter();
        placements.flat_map(|place| self.policies.iter().map(move |policy| way(place, policy))).collect()
    }
}

fn play_gemm(options: &Options) -> Result<(), vkhmm_sim::model::PlayError> {
    for way in options.ways() {
        let row = Gemm::measure(&options.model, &way)?;
        println!("{}", if options.json { row.json(&options.model) } else { row.line(&options.model) });
    }
    Ok(())
}

fn play_paged(options: &Options) -> Result<(), vkhmm_sim::model::PlayError> {
    let Options { model, limit, .. } = options;
    if !options.json {
        println!("{}", paged::header(model, *limit));
    }
    for program in PROGRAMS {
        for ratio in &options.ratios {
            for way in options.ways() {
                let row = paged::Row::measure(model, program, *ratio, *limit, &way)?;
                println!("{}", if options.json { row.json(model) } else { row.line() });
            }
        }
    }
    Ok(())
}

fn list() {
    println!("machines:");
    presets::ALL.iter().for_each(|model| println!("  {:<15} {}", model.name, model.about));
    println!("traces:");
    traces::ALL.iter().for_each(|recipe| println!("  {:<15} {}", recipe.name, recipe.about));
    println!("policies:");
    policy::all().iter().for_each(|policy| println!("  {}", policy.name()));
}

fn read(mut words: impl Iterator<Item = String>) -> Result<Wish, String> {
    let mut model = None;
    let (mut recipes, mut ratios) = (Vec::new(), Vec::new());
    let mut placements = vec![Placement::Span, Placement::Sparse];
    let (mut rounds, mut limit, mut transfer) = (4, None, Transfer::Import);
    let (mut policies, mut gemm, mut paged, mut json) = (vec![policy::all()[0].clone()], false, false, false);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--help" | "-h" => return Ok(Wish::Help),
            "--list" => return Ok(Wish::List),
            "--json" => json = true,
            "--gemm" => gemm = true,
            "--paged" => paged = true,
            "--policy" => {
                let name = value()?;
                policies = match name.as_str() {
                    "all" => policy::all().to_vec(),
                    name => vec![named(name, "policy", policy::find)?],
                };
            }
            "--staging" => transfer = Transfer::Staging,
            "--placement" => placements = vec![named(&value()?, "placement", placement)?],
            "--model" => model = Some(named(&value()?, "machine", presets::find)?),
            "--trace" => recipes.push(named(&value()?, "trace", traces::find)?),
            "--ratio" => ratios.push(number(&value()?, "ratio", |r: &f64| *r > 0.0 && *r <= 1024.0)?),
            "--rounds" => rounds = number(&value()?, "number of rounds", |n: &u32| *n > 0)?,
            "--limit" => {
                let text = value()?;
                let least = traces::LIMIT_MIN;
                limit = Some(size(&text).filter(|bytes| *bytes >= least).ok_or(format!(
                    "{text:?} is no limit: say a number with MiB, GiB or TiB, at least {} MiB",
                    least >> 20
                ))?);
            }
            _ => return Err(format!("{word:?} is no option")),
        }
    }
    let model = model.ok_or_else(|| format!("--model is missing: one of {}", models()))?;
    if recipes.is_empty() {
        recipes = traces::ALL.iter().collect();
    }
    if ratios.is_empty() {
        ratios = if paged { vec![1.0, 2.0, 4.0] } else { vec![0.9, 1.5, 4.0] };
    }
    let limit = limit.unwrap_or(if paged { 256 << 20 } else { 4 << 30 });
    let options =
        Options { model, recipes, ratios, rounds, limit, transfer, placements, policies, gemm, paged, json };
    Ok(Wish::Play(Box::new(options)))
}

fn placement(name: &str) -> Option<Placement> {
    match name {
        "span" => Some(Placement::Span),
        "sparse" => Some(Placement::Sparse),
        _ => None,
    }
}

fn models() -> String {
    presets::ALL.map(|model| model.name).join(", ")
}

fn named<T>(name: &str, what: &str, find: impl Fn(&str) -> Option<T>) -> Result<T, String> {
    find(name).ok_or_else(|| format!("no {what} is called {name:?}: --list has them all"))
}

fn number<T: std::str::FromStr>(text: &str, what: &str, fits: impl Fn(&T) -> bool) -> Result<T, String> {
    text.parse().ok().filter(fits).ok_or_else(|| format!("{text:?} is no {what}"))
}

/// Reads a size such as `4GiB`.
fn size(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let shift = match &text[digits..] {
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(1 << shift)
}
