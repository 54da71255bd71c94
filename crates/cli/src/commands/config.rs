//! `hedge config`: the grid's settings.

use super::access::Right;
use super::{Context, ask, unexpected};
use crate::args::{Config, ConfigDo};
use crate::exit::{Exit, Failure};
use crate::show::table::{Column, table};
use hedge_model::msg::{Reply, Request};
use hedge_model::view::SettingView;
use serde_json::json;

/// Shows or changes settings.
///
/// # Errors
/// No such setting, a value that does not fit, or a grid that cannot be reached or does not allow it.
pub fn run(context: &Context, args: Config) -> Result<Exit, Failure> {
    match args.what {
        ConfigDo::Get { name, grid } => context.on_grid(&grid, async |client| {
            let Reply::Settings(mut settings) = ask(client, Request::Settings).await? else {
                return Err(unexpected());
            };
            if let Some(name) = &name {
                settings.retain(|setting| setting.name == *name);
                let Some(one) = settings.first() else {
                    let why = format!("there is no setting {name:?}; `hedge config get` lists all");
                    return Err(Failure::Arguments(why));
                };
                context.look.print(one, || format!("{}\n", one.value))?;
            } else {
                context.look.print(&settings, || list(&settings))?;
            }
            Ok(Exit::Done)
        }),
        ConfigDo::Set { name, value, grid } => {
            context.on_grid_as(Right::Admin, &grid, async |client| {
                let request = Request::Set {
                    name: name.clone(),
                    value: value.clone(),
                };
                ask(client, request).await?;
                let text = || format!("{name} is {value} in the whole grid\n");
                let shown = json!({ "name": name, "value": value });
                context.look.print(&shown, text)?;
                Ok(Exit::Done)
            })
        }
    }
}

fn list(settings: &[SettingView]) -> String {
    let row = |setting: &SettingView| {
        vec![
            setting.name.clone(),
            setting.value.clone(),
            setting.default.clone(),
            setting.what.clone(),
        ]
    };
    const COLUMNS: [Column; 4] = [
        Column::new("SETTING"),
        Column::new("VALUE"),
        Column::drop("DEFAULT", 1),
        Column::below("WHAT"),
    ];
    table(&COLUMNS, settings.iter().map(row).collect())
}
