//! A whole cluster on loopback: the supervisor behind `vstack dev`.
