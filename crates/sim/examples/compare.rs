//! Policies side by side, without the rest of the command:
//! `cargo run --release -p hedge-sim --example compare -- TRACE LIFETIME RUNS POLICIES WORKFLOW…`.

use hedge_sim::eval::{Contender, Options, Trace, Workflow, compare};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [trace, lifetime, runs, policies, files @ ..] = args.as_slice() else {
        return Err("usage: compare TRACE LIFETIME RUNS POLICY,… WORKFLOW…".into());
    };
    let trace = Trace::read(&std::fs::read_to_string(trace)?)?;
    let read = |file: &String| -> Result<Workflow, Box<dyn std::error::Error>> {
        let workflow = Workflow::from_wfformat(&std::fs::read_to_string(file)?)?;
        let stem = std::path::Path::new(file).file_stem().unwrap_or_default();
        Ok(workflow.named(&stem.to_string_lossy()))
    };
    let workflows = files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let mut options = Options {
        lifetime: Some(lifetime.parse()?),
        runs: runs.parse()?,
        threads: 2,
        ..Options::default()
    };
    if policies != "all" {
        let named = policies.split(',').map(Contender::find);
        options.policies = named.collect::<Result<_, _>>()?;
    }
    for setting in std::env::var("SIM").unwrap_or_default().split(',') {
        match setting.split_once('=') {
            Some(("straggling", value)) => options.model.straggling = value.parse()?,
            Some(("losses", value)) => options.model.losses = value == "1",
            Some(("learn", value)) => options.learn = value.parse()?,
            Some(("detect", value)) => options.detect = value.parse()?,
            Some(("seed", value)) => options.seed = value.parse()?,
            Some((name, _)) => return Err(format!("no setting {name:?}").into()),
            None => {}
        }
    }
    let began = Instant::now();
    let result = compare(&workflows, &trace, &options, &|_, _| {})?;
    let overall = ("ALL".to_owned(), &result.overall);
    let tables = result.tables.iter().map(|t| (t.workflow.clone(), &t.rows));
    for (name, rows) in tables.chain([overall]) {
        println!("{name}");
        for row in rows {
            let (c, b) = (row.clairvoyant, row.bound);
            println!(
                "  {:9} mean {:.3} p50 {:.3} p95 {:.3} p99 {:.3} | bound {:.3} | net {:5.1} % sec {:5.1} % lost {:4.1} % copies {:.1}",
                row.policy,
                c.mean,
                c.p50,
                c.p95,
                c.p99,
                b.mean,
                row.net * 100.0,
                row.second_copies * 100.0,
                row.lost * 100.0,
                row.copies_per_run
            );
        }
    }
    println!("{:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}
