"""Searches: what a generator program is worth, found by few trainings; strategies that can be compared."""
