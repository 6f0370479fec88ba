"""Stores kept in order: their health, export, merge, garbage."""
