"""What makes checking n tokens cost little more than one; chosen by what the machine can do."""
