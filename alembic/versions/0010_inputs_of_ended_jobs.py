"""How large what a job was given is, when it was forgotten, and how: pictures and sounds stay as digest and size alone.

Both columns are null in the rows that are there, and in those that the release before goes on writing: the processes of
this release mark them little by little.
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# A prompt is shorter than what is taken for a data: URI here. One whose base64 is not whole was never accepted; should
# there be one, its text is digested as it is.
WITHOUT_MEDIA = """
CREATE FUNCTION without_media(value jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    uri text;
    encoded text;
    media bytea;
BEGIN
    CASE jsonb_typeof(value)
        WHEN 'object' THEN
            RETURN (SELECT coalesce(jsonb_object_agg(field.key, without_media(field.value)), '{}')
                      FROM jsonb_each(value) AS field);
        WHEN 'array' THEN
            RETURN (SELECT coalesce(jsonb_agg(without_media(item.value) ORDER BY item.place), '[]')
                      FROM jsonb_array_elements(value) WITH ORDINALITY AS item (value, place));
        WHEN 'string' THEN
            uri := value #>> '{}';
            IF length(uri) <= 4096 OR uri !~ '^data:[a-z]+/[a-z0-9.+-]+;base64,' THEN
                RETURN value;
            END IF;
            encoded := substr(uri, strpos(uri, ',') + 1);
            BEGIN
                media := decode(encoded, 'base64');
            EXCEPTION WHEN OTHERS THEN
                media := convert_to(encoded, 'UTF8');
            END;
            RETURN jsonb_build_object(
                'content_type', split_part(substr(uri, 6, 100), ';', 1),
                'sha256', encode(sha256(media), 'hex'),
                'size_bytes', octet_length(media));
        ELSE
            RETURN value;
    END CASE;
END $$
"""


def upgrade() -> None:
    op.execute("ALTER TABLE jobs ADD COLUMN input_bytes integer, ADD COLUMN input_forgotten_at timestamptz")
    op.execute(
        "CREATE INDEX jobs_inputs_to_forget ON jobs (id)"
        " WHERE is_final AND input_bytes IS NOT NULL AND input_forgotten_at IS NULL"
    )
    op.execute(WITHOUT_MEDIA)


def downgrade() -> None:
    op.execute("DROP FUNCTION without_media(jsonb)")
    op.execute("DROP INDEX jobs_inputs_to_forget")
    op.execute("ALTER TABLE jobs DROP COLUMN input_forgotten_at, DROP COLUMN input_bytes")
