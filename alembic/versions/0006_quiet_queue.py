"""The queue says less: to the step that it concerns, of what can be taken now, and nothing to its log.

Each step has a channel of its own, with the name of its entrypoint. The release before this one hears nothing, and
looks by itself.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# What the library's own function says. An item that waits for its time needs no word, and an end makes room for the
# next one only where it was taken.
WAKE_A_STEP = """
CREATE FUNCTION wake_a_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify(entrypoint, json_build_object(
                'channel', entrypoint,
                'operation', lower(TG_OP),
                'sent_at', now(),
                'table', TG_TABLE_NAME,
                'type', 'table_changed_event')::text)
       FROM changed
      WHERE CASE TG_OP WHEN 'INSERT' THEN execute_after <= now() ELSE status = 'picked' END
      GROUP BY entrypoint;
    RETURN NULL;
END $$
"""
LIBRARYS_OWN = """
CREATE TRIGGER tg_pgqueuer_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON pgqueuer
EXECUTE FUNCTION fn_pgqueuer_changed()
"""
ORDER_OF_TAKING = "pgqueuer_ep_prio_id_idx ON pgqueuer (entrypoint, priority DESC, id"
# In the order in which the library's prepared statements take them, or a worker's statement dies of a deadlock, and
# its item with it.
WAIT_FOR_WORKERS = "LOCK TABLE pgqueuer_log, pgqueuer IN ACCESS EXCLUSIVE MODE"


def upgrade() -> None:
    op.execute(WAIT_FOR_WORKERS)
    op.execute("DROP TRIGGER tg_pgqueuer_changed ON pgqueuer")
    op.execute(WAKE_A_STEP)
    for name, event, rows in (("added", "INSERT", "NEW"), ("ended", "DELETE", "OLD")):
        op.execute(
            f"CREATE TRIGGER pgqueuer_{name} AFTER {event} ON pgqueuer REFERENCING {rows} TABLE AS changed"
            " EXECUTE FUNCTION wake_a_step()"
        )
    op.execute("CREATE FUNCTION write_nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    op.execute(
        "CREATE TRIGGER pgqueuer_log_is_not_kept BEFORE INSERT ON pgqueuer_log"
        " FOR EACH ROW EXECUTE FUNCTION write_nothing()"
    )
    op.execute("TRUNCATE pgqueuer_log")
    # While statistics are older than the queue, the planner goes through all that waits for its time in the order of
    # this index. With the time in it that takes a quarter of the time: no row is fetched to see that it is not due.
    op.execute("DROP INDEX pgqueuer_ep_prio_id_idx")
    op.execute(f"CREATE INDEX {ORDER_OF_TAKING}, execute_after) WHERE status = 'queued'")


def downgrade() -> None:
    op.execute(WAIT_FOR_WORKERS)
    op.execute("DROP INDEX pgqueuer_ep_prio_id_idx")
    op.execute(f"CREATE INDEX {ORDER_OF_TAKING}) WHERE status = 'queued'")
    op.execute("DROP TRIGGER pgqueuer_log_is_not_kept ON pgqueuer_log")
    op.execute("DROP FUNCTION write_nothing()")
    op.execute("DROP TRIGGER pgqueuer_added ON pgqueuer")
    op.execute("DROP TRIGGER pgqueuer_ended ON pgqueuer")
    op.execute("DROP FUNCTION wake_a_step()")
    op.execute(LIBRARYS_OWN)
