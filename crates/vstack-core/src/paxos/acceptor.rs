//! (written by CONSENSUS)
