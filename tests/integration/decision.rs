//! Tests of decision.
