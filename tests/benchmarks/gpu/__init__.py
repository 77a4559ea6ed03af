"""``make gpu``: what a GPU makes of this, in one command and at most eight minutes."""
