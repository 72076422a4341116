"""Several ranks of one run: what each gets, whether they agree, and faults on purpose."""
