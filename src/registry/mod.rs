//! Versions of bundles: which is active, promotion, rollback.
