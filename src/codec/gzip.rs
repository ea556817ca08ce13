//! gzip framing (RFC 1952): headers, trailers, and empty members that carry data in FEXTRA.
