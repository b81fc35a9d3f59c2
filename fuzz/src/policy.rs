#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vstack_netsim::fuzzing::policy(data));
