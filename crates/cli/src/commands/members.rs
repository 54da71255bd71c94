//! `hedge members` and `hedge revoke`: who is in the grid, and who is not any more.

use super::access::Right;
use super::confirm::confirm_irreversible;
use super::{Context, ask, unexpected};
use crate::args::{Members, MembersDo, Revoke};
use crate::exit::{Exit, Failure};
use crate::show::escape;
use crate::show::table::{Column, table};
use hedge_model::msg::{Reply, Request};
use hedge_model::view::MemberView;
use serde_json::json;

/// How much of a member's id is shown; enough to name it.
const ID_SHOWN: usize = 10;

/// Lists members, takes one out, or upgrades the group.
///
/// # Errors
/// The grid cannot be reached, or does not allow it.
pub fn run(context: &Context, args: Members) -> Result<Exit, Failure> {
    if let Some(MembersDo::Remove(mut member)) = args.what {
        if args.upgrade {
            let why =
                "--upgrade has no effect with `remove`; nothing was changed: leave one of them out";
            return Err(Failure::Arguments(why.to_owned()));
        }
        member.grid.join = member.grid.join.or(args.grid.join);
        return revoke(context, &member);
    }
    if args.upgrade {
        let what = "supervisors that run an older release will no longer be able to take part";
        confirm_irreversible(what, args.yes)?;
    }
    context.on_grid_as(Right::Admin, &args.grid, async |client| {
        if args.upgrade {
            ask(client, Request::Upgrade).await?;
            let text = || "the supervisors use the newest format that all of them speak\n".into();
            context.look.print(&json!({ "upgraded": true }), text)?;
            return Ok(Exit::Done);
        }
        let Reply::Members(members) = ask(client, Request::Members).await? else {
            return Err(unexpected());
        };
        context.look.print(&members, || list(&members))?;
        Ok(Exit::Done)
    })
}

/// Revokes a member.
///
/// # Errors
/// There is no such member or several are meant, the grid cannot be reached, or does not allow it.
pub fn revoke(context: &Context, args: &Revoke) -> Result<Exit, Failure> {
    let what = format!("the member {} will be revoked for good", args.peer);
    confirm_irreversible(&what, args.yes)?;
    context.on_grid_as(Right::Admin, &args.grid, async |client| {
        ask(client, Request::Revoke(args.peer.clone())).await?;
        let value = json!({ "peer": args.peer, "revoked": true });
        let text = || format!("{} is no longer a member\n", args.peer);
        context.look.print(&value, text)?;
        Ok(Exit::Done)
    })
}

fn list(members: &[MemberView]) -> String {
    let row = |member: &MemberView| {
        vec![
            member.peer.chars().take(ID_SHOWN).collect(),
            member.role.clone(),
            member.place.clone().unwrap_or_default(),
            if member.connected { "yes" } else { "no" }.to_owned(),
        ]
    };
    const COLUMNS: [Column; 4] = [
        Column::new("MEMBER"),
        Column::new("ROLE"),
        Column::new("PLACE"),
        Column::new("CONNECTED"),
    ];
    let mut text = table(&COLUMNS, members.iter().map(row).collect());
    for member in members {
        if let Some(fault) = &member.disk_fault {
            let id: String = member.peer.chars().take(ID_SHOWN).collect();
            let fault = escape::line(fault);
            text.push_str(&format!("supervisor {id} cannot store anything: {fault}\n"));
        }
    }
    text
}
