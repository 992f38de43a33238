# A whole database server whose files are there: it looks at owner and mode of
# its directory, locks, extends, renames, syncs, and recovers after it was cut short.
PATH=$(echo /usr/lib/postgresql/*/bin | tr ' ' '\n' | tail -n 1):$PATH
export PGDATA=$shared/data PGHOST=$mine PGDATABASE=postgres PGUSER=pg
initdb --auth=trust --username=pg --no-instructions --data-checksums >"$mine/initdb.out" 2>&1 || { cat "$mine/initdb.out"; exit; }
printf "listen_addresses=''\nunix_socket_directories='%s'\nshared_buffers=16MB\nmin_wal_size=32MB\nautovacuum=off\nlog_statement=none\n" "$mine" >>"$PGDATA/postgresql.conf"
server() { pg_ctl -s -w -t 120 -l "$mine/server.log" "$@" || tail -n 5 "$mine/server.log"; }
sql() { psql -XAtq "$@" 2>&1; }

server start
sql <<'EOF'
CREATE TABLE t (id int PRIMARY KEY, name text);
INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 20000) i;
CREATE INDEX ON t (name);
BEGIN; DELETE FROM t WHERE id % 7 = 0; ROLLBACK;
UPDATE t SET name = upper(name) WHERE id % 5 = 0;
VACUUM FULL t;
CHECKPOINT;
SELECT count(*), sum(id), md5(string_agg(name, '' ORDER BY id)) FROM t;
EOF
for i in 1 2 3; do sql -c "INSERT INTO t SELECT i, 'client $i' FROM generate_series(${i}00001, ${i}00500) i" & done; wait
mkdir "$shared/other" && sql -c "CREATE TABLESPACE other LOCATION '$shared/other'" -c "CREATE TABLE u TABLESPACE other AS SELECT * FROM t"
sql -c "SELECT count(*) FROM u"
pg_basebackup -D "$shared/copy" -c fast -T "$shared/other=$shared/copied" 2>&1
pg_verifybackup "$shared/copy" 2>&1

server stop -m immediate
server start
grep -c 'automatic recovery in progress' "$mine/server.log"
sql -c "SELECT count(*), md5(string_agg(name, '' ORDER BY id)) FROM t"
server stop -m fast
pg_checksums --check | grep -v scanned
chmod 0755 "$PGDATA"
pg_ctl -s -w -t 20 -l "$mine/refused.log" start 2>&1 | head -n 1
sed -n 's/.*FATAL: *//p' "$mine/refused.log"
