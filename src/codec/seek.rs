//! Seek points into anyone's gzip: where a decoder can start, and the window it needs there.
