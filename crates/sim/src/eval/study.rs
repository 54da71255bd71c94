//! Comparisons under several models of luck: a policy that expects one of them must not be measured on that one alone.

use super::compare::{Comparison, Options, compare};
use super::model::{Model, STRAGGLERS};
use super::rows::{Errors, Row, Table, pooled};
use super::trace::Trace;
use super::workflow::Workflow;
use crate::Error;
use serde::Serialize;

/// Errors of estimates that are compared by default: standard deviations of the logarithm.
pub const ESTIMATE_ERRORS: [f64; 2] = [0.2, 0.8];

/// A model of luck and what it is called.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// For people.
    pub name: String,
    /// The model.
    pub model: Model,
}

/// A comparison under one model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// What the model is called.
    pub name: String,
    /// What came of it.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// A comparison under each of several models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Study {
    /// One for each model.
    pub cases: Vec<Measured>,
    /// For each policy over all workflows and models, pooled as in [`Comparison::overall`]. The models meet the same
    /// draws, so that errors are not smaller than those of one model.
    pub overall: Vec<Row>,
}

/// The usual models: `model` with each of the named models of stragglers, and with each error of estimates.
///
/// # Errors
/// A name that no model of stragglers has.
pub fn cases(model: &Model, stragglers: &[String], errors: &[f64]) -> Result<Vec<Case>, Error> {
    let mut cases = Vec::new();
    for name in stragglers {
        let Some((name, found)) = STRAGGLERS.iter().find(|(known, _)| known == name) else {
            let names: Vec<&str> = STRAGGLERS.iter().map(|(name, _)| *name).collect();
            let names = names.join(", ");
            let why = format!("{name:?} is no model of stragglers; there are {names}");
            return Err(Error::Option(why));
        };
        let model = model.clone().with_stragglers(*found);
        cases.extend(with_errors(&format!("stragglers: {name}"), &model, errors));
    }
    Ok(cases)
}

/// A model with each error of estimates.
pub fn with_errors(name: &str, model: &Model, errors: &[f64]) -> Vec<Case> {
    let case = |error: &f64| Case {
        name: format!("{name}, estimates off by {error}"),
        model: Model {
            estimate_error: *error,
            ..model.clone()
        },
    };
    errors.iter().map(case).collect()
}

/// Compares policies under each model; the model of `options` does not count. `progress` hears of each run that is over.
///
/// # Errors
/// Options that make no sense, or a run that does not end.
pub fn study(
    workflows: &[Workflow],
    trace: &Trace,
    options: &Options,
    cases: &[Case],
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Study, Error> {
    let mut measured = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        let options = Options {
            model: case.model.clone(),
            ..options.clone()
        };
        let part = |done: usize, of: usize| progress(at * of + done, cases.len() * of);
        measured.push(Measured {
            name: case.name.clone(),
            comparison: compare(workflows, trace, &options, &part)?,
        });
    }
    let tables = measured.iter().flat_map(|case| &case.comparison.tables);
    let tables: Vec<Table> = tables.cloned().collect();
    let mut overall = pooled(&tables);
    let count = measured.len().max(1) as f64;
    for (at, row) in overall.iter_mut().enumerate() {
        let mean = |of: fn(&Row) -> f64| {
            let each = measured.iter().map(|case| of(&case.comparison.overall[at]));
            each.sum::<f64>() / count
        };
        row.clairvoyant_error = Errors {
            mean: mean(|row| row.clairvoyant_error.mean),
            p99: mean(|row| row.clairvoyant_error.p99),
        };
        row.bound_error = Errors {
            mean: mean(|row| row.bound_error.mean),
            p99: mean(|row| row.bound_error.p99),
        };
        row.net_error = mean(|row| row.net_error);
    }
    Ok(Study {
        cases: measured,
        overall,
    })
}
