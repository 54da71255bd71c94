//! Views of workers.

use crate::Resources;
use serde::{Deserialize, Serialize};

/// A worker in figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WorkerView {
    /// Who.
    pub peer: String,
    /// Its machine.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// `live`, `late`, `suspect` or `dead`.
    pub liveness: String,
    /// `ready`, `away` (its owner is back) or `draining`.
    pub usage: String,
    /// What its owner does, where that keeps it from working as if nobody were there.
    pub owner: Option<OwnerView>,
    /// `admitted`, or `quarantined` (its link is too slow) or `excluded`, and why.
    pub admission: String,
    /// What was measured of its link to the leading supervisor.
    pub link: Option<LinkView>,
    /// What it offers.
    pub total: Resources,
    /// What is free.
    pub free: Resources,
    /// The folders that its owner shares with tasks; `NAME:ro` where tasks may only read.
    pub shares: Vec<String>,
    /// The most network access that it gives tasks: `none`, `loopback` or `any`.
    pub network: String,
    /// Attempts in hand.
    pub in_hand: u32,
    /// Tasks it has won.
    pub done: u64,
    /// Attempts that failed there.
    pub failed: u64,
    /// Attempts lost with it.
    pub lost: u64,
    /// Between two heartbeats that it is to show now.
    pub heartbeat_interval_ms: f64,
    /// The watch mode, by its name in settings such as `watch_idle`.
    pub heartbeat_mode: String,
    /// Heartbeats on this connection so far.
    pub heartbeats: u64,
    /// How often it was suspect on this connection.
    pub suspicions: u64,
    /// Gaps between its heartbeats that were longer than the interval by more than a tenth.
    pub late_gaps: u64,
    /// Heartbeats that it sent or was asked for, and that did not arrive.
    pub missed_heartbeats: u64,
    /// Heartbeats that were on their way for so long that they were dropped.
    pub held_up_heartbeats: u64,
    /// Since its last heartbeat.
    pub silent_ms: f64,
    /// `normal` or `higher`.
    pub class: String,
    /// Work that it is expected to do in a second, in seconds of a standard machine.
    pub score: f64,
    /// By what, and how much each counts.
    pub score_from: String,
}

/// What was measured of a worker's link.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LinkView {
    /// From the supervisor to the worker, where the worker said in time what arrived.
    pub down_bits_per_second: Option<u64>,
    /// From the worker to the supervisor.
    pub up_bits_per_second: u64,
    /// There and back.
    pub round_trip_ms: Option<f64>,
}

/// A worker whose owner is back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct OwnerView {
    /// `lower`, `pause` or `vacate`: what the worker does about it.
    pub response: String,
    /// Kinds of activity and other reasons.
    pub why: Vec<String>,
    /// For how long.
    pub away_ms: f64,
}
