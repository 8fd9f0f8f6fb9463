"""Tests: unit, sim (whole engine in virtual time), contract, system (real processes)."""
