"""What reports are made from: runs read, seeds put together, files of other commands, worst images.

`runs` and `results` load no torch, so that a leaderboard over stored tables is there in a moment.
"""
