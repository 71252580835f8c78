"""Tests of deploy/incidents."""
