//! Deserialises persistent maps and lists without trusting their claimed length. Their own deserialisers allocate for
//! all of it first, so that a damaged snapshot would end the process.

use imbl::{OrdMap, Vector};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

pub(crate) fn map<'de, K, V, D>(deserializer: D) -> Result<OrdMap<K, V>, D::Error>
where
    K: Ord + Clone + Deserialize<'de>,
    V: Clone + Deserialize<'de>,
    D: Deserializer<'de>,
{
    let map = BTreeMap::<K, V>::deserialize(deserializer)?;
    Ok(map.into_iter().collect())
}

pub(crate) fn vector<'de, T, D>(deserializer: D) -> Result<Vector<T>, D::Error>
where
    T: Clone + Deserialize<'de>,
    D: Deserializer<'de>,
{
    let list = Vec::<T>::deserialize(deserializer)?;
    Ok(list.into_iter().collect())
}
