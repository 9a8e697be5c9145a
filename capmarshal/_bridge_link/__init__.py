"""How two bridges find each other, and ask each other what nobody else reads."""
