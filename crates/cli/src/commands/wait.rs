//! `hedge wait`: until a job has ended.

use super::Context;
use super::finish::{Wish, finish};
use super::follow::{Followed, follow};
use super::interrupt::Interrupts;
use super::nested::TaskWaits;
use super::place::check_out;
use super::submit::detached;
use crate::args::Wait;
use crate::exit::{Exit, Failure};
use crate::show::progress::Progress;
use hedge_model::JobId;

/// Waits, then tells how it went and brings results where `--out` says so.
///
/// # Errors
/// There is no such job, or the grid cannot be reached.
pub fn run(context: &Context, args: &Wait) -> Result<Exit, Failure> {
    check_out(args.out.as_deref(), false)?;
    let job = JobId(args.id);
    context.on_grid(&args.grid, async |client| {
        let mut interrupts = Interrupts::new()?;
        let waits = TaskWaits::begin(job);
        let mut progress = Progress::new(context.look.style(false));
        let followed = follow(client, job, &mut progress, &mut interrupts).await;
        drop((progress, waits));
        let view = match followed? {
            Followed::Ended(view) => *view,
            Followed::Interrupted => return Ok(detached(job)),
        };
        let wish = Wish {
            results: args.out.is_some(),
            out: args.out.as_deref(),
            program: None,
            last: None,
        };
        finish(context, client, view, &wish, &mut interrupts).await
    })
}
