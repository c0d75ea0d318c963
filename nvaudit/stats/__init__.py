"""Statistics of the chips: KPP, intervals, tails, gates, paired differences, roughness."""
