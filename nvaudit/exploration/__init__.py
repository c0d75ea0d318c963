"""Design spaces: which points there are, and which of them stand on the front of KPP against cost."""
