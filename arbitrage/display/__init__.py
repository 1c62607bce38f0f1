"""How things look in a terminal, and in a log where there is none.

`progress` shows prompts while they are answered, `job` those of a job, `sample` what everyone
answered to one of them, `policy` what was learned; `tables` is the look that they share.
"""
