//! Identity, tickets, control connections and data transfer between Hedgerow peers.
