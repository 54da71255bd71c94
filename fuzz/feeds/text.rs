//! Text that people give: units, settings, ids.

use hedge_model::units::{parse_bytes, parse_duration};
use hedge_model::{Hash, Settings, SubmitKey};

/// One byte says which; for a setting a line with its name comes before its value.
pub fn text(data: &[u8]) {
    let Some((kind, text)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(text);
    match kind {
        4 => drop(parse_bytes(&text)),
        5 => drop(parse_duration(&text)),
        6 => drop(text.parse::<Hash>()),
        7 => drop(text.parse::<SubmitKey>()),
        8 => {
            let (name, value) = text.split_once('\n').unwrap_or((&text, ""));
            let mut settings = Settings::default();
            if settings.set(name, value).is_ok() {
                let mut other = Settings::default();
                other.apply(&name.into(), &value.into());
                assert_eq!(
                    settings, other,
                    "a setting that is taken is applied alike everywhere"
                );
            }
            drop(settings.views());
        }
        _ => {}
    }
}
