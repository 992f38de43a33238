"""Writers and readers of one database at once, in both kinds of journal."""
import multiprocessing, os, sqlite3, sys

shared = os.environ["shared"]


def connect(path):
    return sqlite3.connect(path, timeout=60, isolation_level=None)


def write(path, who):
    db = connect(path)
    for i in range(10):
        db.execute("begin immediate")
        db.execute("update account set amount = amount - 1 where name = 'a'")
        db.execute("update account set amount = amount + 1 where name = 'b'")
        db.execute("insert into log values (?, ?, ?)", (who, i, "x" * (i * 100)))
        db.execute("rollback" if i % 5 == 4 else "commit")
    db.close()


def read(path, said):
    db = connect(path)
    for _ in range(25):
        total, entries, moved = db.execute("select (select sum(amount) from account), (select count(*) from log), (select amount from account where name = 'b')").fetchone()
        if total != 1000 or entries != moved:
            said.put(f"torn: {total} {entries} {moved}")
    db.close()


for mode in ["delete", "wal"]:
    path = f"{shared}/{mode}.db"
    db = connect(path)
    print(mode, db.execute(f"pragma journal_mode={mode}").fetchone())
    db.execute("create table account(name primary key, amount)")
    db.execute("create table log(who, n, text)")
    db.execute("insert into account values ('a', 1000), ('b', 0)")
    db.close()
    said = multiprocessing.SimpleQueue()
    jobs = [multiprocessing.Process(target=write, args=(path, w)) for w in range(3)]
    jobs += [multiprocessing.Process(target=read, args=(path, said)) for _ in range(3)]
    for j in jobs:
        j.start()
    for j in jobs:
        j.join()
    while not said.empty():
        print(said.get())
    db = connect(path)
    print([j.exitcode for j in jobs], db.execute("pragma integrity_check").fetchone())
    print(db.execute("select count(*), sum(length(text)) from log").fetchone(), db.execute("select * from account order by name").fetchall())
    db.execute("vacuum")
    print(db.execute("pragma integrity_check").fetchone())
    db.close()
    print(sorted(f for f in os.listdir(shared) if f.startswith(mode)))
