"""What a report is made from: runs and frames of other commands."""
