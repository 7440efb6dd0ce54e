"""What the definitions of the tables share."""

from sqlalchemy import Column, DateTime, ForeignKeyConstraint, MetaData, func

metadata = MetaData()

time = DateTime(timezone=True)


def created_at(name: str = "created_at") -> Column[object]:
    return Column(name, time, nullable=False, server_default=func.now())


def account_key(table: str) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["account_id"], ["accounts.id"], name=f"{table}_account_id_fkey", ondelete="RESTRICT")
