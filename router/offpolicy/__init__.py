"""What a policy that did not run would have got, by the log of one that did."""
