"""Every operation kazoo has, with results and error classes."""

from kazoo.exceptions import KazooException
from kazoo.security import ACL, Id, OPEN_ACL_UNSAFE, make_acl, make_digest_acl

from script import DIRECT, close, connect, show, say, step

zk = connect()

# Creation in every mode.
step("create", zk.create, "/a", b"x")
step("create without data", zk.create, "/empty")
step("create ephemeral", zk.create, "/e", b"x", ephemeral=True)
step("create sequence", zk.create, "/a/s-", b"", sequence=True)
step("create ephemeral sequence", zk.create, "/a/es-", b"", ephemeral=True, sequence=True)
step("create with data", zk.create, "/stat", b"12345", include_data=True)
step("create with parents", zk.create, "/deep/er/still", b"y", makepath=True)
step("create again", zk.create, "/a", b"")
step("create without a parent", zk.create, "/no/parent", b"")
step("create below an ephemeral", zk.create, "/e/x", b"")
step("create ill-formed", zk.create, "/a//b", b"")
step("ensure path", zk.ensure_path, "/ensured/path/here")
step("ensure path again", zk.ensure_path, "/ensured/path/here")

# Reading and writing.
step("get", zk.get, "/a")
step("get empty", zk.get, "/empty")
step("get missing", zk.get, "/nope")
step("exists", zk.exists, "/a")
step("exists not", zk.exists, "/nope")
step("children", zk.get_children, "/a")
step("children with stat", zk.get_children, "/a", include_data=True)
step("children of the missing", zk.get_children, "/nope")
step("children of an ephemeral", zk.get_children, "/e")
step("set", zk.set, "/a", b"new")
step("set at a version", zk.set, "/a", b"newer", version=1)
step("set at a wrong version", zk.set, "/a", b"no", version=1)
step("set the missing", zk.set, "/nope", b"")
step("set None", zk.set, "/empty", None)
step("get None", zk.get, "/empty")
step("sync", zk.sync, "/a")
step("delete at a wrong version", zk.delete, "/empty", version=7)
step("delete", zk.delete, "/empty")
step("delete the missing", zk.delete, "/empty")
step("delete a parent", zk.delete, "/deep")
step("delete recursively", zk.delete, "/deep", recursive=True)
step("delete the root", zk.delete, "/")
step("set the root", zk.set, "/", b"root")
step("unicode", zk.create, "/\u00e4\u4e2d", "\u00e4".encode())
step("unicode children", zk.get_children, "/")
step("ephemeral's owner", lambda: zk.get("/e")[1].owner_session_id == zk.client_id[0])

# Large data.
big = b"x" * 1000000
step("create big", zk.create, "/big", big)
step("get big", zk.get, "/big")

# Transactions.
def commit(*calls):
    transaction = zk.transaction()
    for name, *arguments in calls:
        getattr(transaction, name)(*arguments)
    return transaction.commit()

step("transaction", commit, ("create", "/t", b"1"), ("check", "/t", 0), ("set_data", "/t", b"2", 0), ("create", "/t/k"), ("delete", "/t/k"))
step("failed transaction", commit, ("set_data", "/t", b"3"), ("delete", "/nope"), ("create", "/t/k"))
step("failed check", commit, ("check", "/t", 5), ("delete", "/t"))
step("empty transaction", commit)
transaction = zk.transaction()
transaction.create("/t/s-", b"", sequence=True)
transaction.create("/t/e-", b"", ephemeral=True, sequence=True)
step("sequences", lambda: tuple(transaction.commit()))
step("after", zk.get, "/t")

# Access control.
digest = make_digest_acl("bob", "secret", all=True)
reader = make_acl("world", "anyone", read=True)
step("create for bob", zk.create, "/bob", b"his", acl=[digest, reader])
step("masked", zk.get_acls, "/bob")
step("get", zk.get, "/bob")
step("set refused", zk.set, "/bob", b"")
step("set acls refused", zk.set_acls, "/bob", OPEN_ACL_UNSAFE)
step("create auth of nobody", zk.create, "/mine", b"", acl=[ACL(31, Id("auth", ""))])
step("create invalid", zk.create, "/mine", b"", acl=[ACL(31, Id("nothing", "x"))])
step("create ip", zk.create, "/ip", b"", acl=[make_acl("ip", "127.0.0.1", all=True)])
step("get ip", zk.get, "/ip")
step("create other ip", zk.create, "/ip2", b"", acl=[make_acl("ip", "10.0.0.1", all=True)])
step("get other ip", zk.get, "/ip2")
step("add auth", zk.add_auth, "digest", "bob:secret")
step("unmasked", zk.get_acls, "/bob")
step("set", zk.set, "/bob", b"")
step("set acls", zk.set_acls, "/bob", [digest])
step("set acls at a wrong version", zk.set_acls, "/bob", [digest], version=0)
step("create auth", zk.create, "/mine", b"", acl=[ACL(31, Id("auth", ""))])
step("create auth with a null id", zk.create, "/mine2", b"", acl=[ACL(31, Id("auth", None))])
step("acls", zk.get_acls, "/mine")
other = connect(auth_data=[("digest", "eve:guess")])
step("another", other.get, "/bob")
step("another's children", other.get_children, "/mine")
step("another deletes", other.delete, "/mine")
close(other)
wrong = connect()
step("unknown scheme", wrong.add_auth, "unheard", "x")
try:
    close(wrong)
except KazooException as error:
    say("closing: " + show(error))

# What is left.
step("reconfig", zk.reconfig, joining="server.2=localhost:1:2:participant;3", leaving=None, new_members=None)
chrooted = connect(DIRECT + "/t")
step("chroot children", chrooted.get_children, "/")
step("chroot create", chrooted.create, "/c", b"")
close(chrooted)
step("ruok", zk.command, b"ruok")
step("stat", lambda: zk.command(b"stat").splitlines()[1:2])
step("mntr", lambda: zk.command(b"mntr").startswith("zk_version\t"))
step("server version", lambda: zk.server_version()[0])
pending = [zk.set_async("/a", b"%d" % number) for number in range(50)]
step("pipelined", lambda: [one.get(timeout=20).version for one in pending])
close(zk)
step("after stop", zk.get, "/a")
