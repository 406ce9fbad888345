"""Verify a database, and correct what was found: `credit-server verify` and `repair`.

`user_book` and `app_book` replay a history, `account_check` compares the account with the result,
and `span_check` does so for a range of users. `apps_check` checks the documents of apps. `run` runs
all checks. `repair` corrects findings, and `user_repair` those of one user. `findings` lists the
kinds of findings.
"""
