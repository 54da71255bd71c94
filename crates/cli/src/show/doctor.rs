//! Findings of `hedge doctor` as text.

use super::escape;
use serde::Serialize;

/// The result of one check.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// What was checked.
    pub what: &'static str,
    /// Whether it works.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// How to mend it.
    pub advice: Option<String>,
}

/// Whether something works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, with a drawback.
    Reduced,
    /// This machine does not have it.
    Absent,
    /// It does not work.
    Bad,
}

/// Creates a finding.
pub fn finding(
    what: &'static str,
    verdict: Verdict,
    found: impl Into<String>,
    advice: Option<&str>,
) -> Finding {
    Finding {
        what,
        verdict,
        found: found.into(),
        advice: advice.map(str::to_owned),
    }
}

/// Returns all findings as lines, each with its advice.
pub fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let verdict = match finding.verdict {
            Verdict::Good => "good",
            Verdict::Reduced => "reduced",
            Verdict::Absent => "not here",
            Verdict::Bad => "BAD",
        };
        text.push_str(&format!(
            "{verdict:<8}  {:<18} {}\n",
            finding.what,
            escape::line(&finding.found)
        ));
        if let Some(advice) = &finding.advice {
            text.push_str(&format!("{:28}→ {}\n", "", escape::line(advice)));
        }
    }
    text
}
