//! The page to look at, and the figures for Prometheus, over HTTP (`http`).
