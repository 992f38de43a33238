import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { after, test } from 'node:test';
import { Cancelled, locate, run, Stop } from '../src/cli';
import { Event, Failure } from '../src/failure';
import { rewrite } from '../src/rewrite';
import { Sessions, Wanted } from '../src/sessions';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'mirrord-vscode-'));
after(() => fs.rmSync(dir, { recursive: true }));

// program makes one that stands for mirrord.
function program(name: string, script: string): string {
	const file = path.join(dir, name, 'mirrord');
	fs.mkdirSync(path.dirname(file), { recursive: true });
	fs.writeFileSync(file, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
	return file;
}

// stops is a Stop that comes when it is called.
function stops(): { stop: Stop; now: () => void } {
	const heard: (() => void)[] = [];
	const stop = { isCancellationRequested: false, onCancellationRequested: (f: () => void) => (heard.push(f), { dispose: () => undefined }) };
	return { stop, now: () => heard.forEach(f => f()) };
}

const code = (want: string) => (err: unknown): boolean => err instanceof Failure && err.code === want;

test('where the program is', () => {
	const a = program('a', ''), b = program('b', '');
	fs.mkdirSync(path.join(dir, 'folder', 'mirrord'), { recursive: true });
	const searched = [path.join(dir, 'folder'), '', path.dirname(b)].join(':');
	assert.equal(locate(a, searched, ''), a);
	assert.equal(locate('', searched, a), b);
	assert.equal(locate('', '/nowhere', a), a);
	assert.equal(locate('', undefined, a), a);
	assert.throws(() => locate('', '/nowhere', '/nowhere/mirrord'), code('vscode-no-binary'));
	assert.throws(() => locate('/nowhere/mirrord', searched, a), code('vscode-no-binary'));
});

test('what it prints, is told and asks', async () => {
	const file = program('prints', 'echo \'{"level":"step","code":"s","text":"goes on"}\' >&2; read word; echo "$1 $word $MIRRORD_PROGRESS_MODE"; pwd');
	const events: Event[] = [];
	const out = await run(file, ['one'], { stdin: 'two\n', cwd: dir, onEvent: e => events.push(e) });
	assert.equal(out, `one two json\n${fs.realpathSync(dir)}\n`);
	assert.deepEqual(events.map(e => e.text), ['goes on']);
	const lines: string[] = [];
	assert.equal(await run(file, ['one'], { onLine: l => lines.push(l) }), '');
	assert.equal(lines.length, 2);
});

test('how it fails', async () => {
	const file = program('fails', 'echo \'{"level":"error","code":"no-kubeconfig","text":"none"}\' >&2; echo said; exit 2');
	await assert.rejects(run(file, []), code('no-kubeconfig'));
	assert.equal(await run(file, [], { codes: [2] }), 'said\n');
	await assert.rejects(run('/nowhere/mirrord', []), code('vscode-no-binary'));
	await assert.rejects(run(program('silent', 'echo oh >&2; exit 7'), []), (err: unknown) => err instanceof Failure && err.why === 'oh');
});

test('how it is ended', async () => {
	const { stop, now } = stops();
	const file = program('waits', 'trap "exit 0" TERM; echo \'{"level":"step","code":"s","text":"waits"}\' >&2; while :; do sleep 0.05; done');
	await assert.rejects(run(file, [], { stop, onEvent: now }), Cancelled);
	await assert.rejects(run(file, [], { stop: { ...stop, isCancellationRequested: true } }), Cancelled);
});

test('a session that is there when its start is cancelled is stopped', async () => {
	const { stop, now } = stops();
	const file = program('late', `
case "$1 $2" in
"session start") trap 'echo "{\\"id\\":\\"s1\\"}"; exit 0' TERM; echo '{"level":"step","code":"s","text":"waits"}' >&2; while :; do sleep 0.05; done ;;
"session stop") echo "$3" >>"$(dirname "$0")/stopped" ;;
esac`);
	const sessions = new Sessions(() => undefined);
	await assert.rejects(sessions.ensure(file, { folder: dir, keep: 1, stamp: '' }, stop, now), Cancelled);
	assert.equal(fs.readFileSync(path.join(dir, 'late', 'stopped'), 'utf8'), 's1\n');
	assert.deepEqual(sessions.running, []);
});

test('a launch is rewritten for its session', async () => {
	const file = program('rewrites', 'cat >"$(dirname "$0")/stdin"; echo "$@" >"$(dirname "$0")/args"; echo \'{"configuration":{"type":"node","name":"Shop","request":"launch"},"wrapped":true}\'');
	const { stop } = stops();
	const r = await rewrite(file, 'k3', dir, { type: 'node', name: 'Shop', request: 'launch', mirrord: { target: 'pod/a' } }, stop);
	assert.deepEqual([r.configuration.name, r.tasks, r.notes, r.wrapped], ['Shop', [], [], true]);
	assert.equal(fs.readFileSync(path.join(dir, 'rewrites', 'args'), 'utf8'), 'debug-config --json --session k3 - Shop\n');
	assert.deepEqual(JSON.parse(fs.readFileSync(path.join(dir, 'rewrites', 'stdin'), 'utf8')), { configurations: [{ type: 'node', name: 'Shop', request: 'launch' }] });
});

test('sessions are started once, shared, and forgotten at their end', async () => {
	const file = program('sessions', `
d=$(dirname "$0")
case "$1 $2" in
"status s"*) [ -e "$d/$2" ] && echo "{\\"id\\":\\"$2\\",\\"commands\\":[$([ -e "$d/busy" ] && echo 1)],\\"ports\\":[{\\"port\\":8080,\\"published\\":\\"127.0.0.1:8080\\"}]}" ;;
"session start") n=$(cat "$d"/started 2>/dev/null | wc -l); echo "$@" >>"$d"/started; : >"$d/s$n"; echo "{\\"id\\":\\"s$n\\",\\"since\\":\\"2026-01-01T00:00:00Z\\",\\"mode\\":\\"steal\\",\\"ports\\":[]}" ;;
"session stop") rm "$d/$3" ;;
"status --events") echo '{"kind":"request","at":"2026-01-01T00:00:00Z","session":"s","method":"GET"}'; while [ -e "$d/$4" ]; do sleep 0.02; done ;;
esac`);
	let changed = (): void => undefined;
	const sessions = new Sessions(() => changed());
	const until = (done: () => boolean): Promise<void> => new Promise(resolve => {
		changed = () => done() && resolve();
		changed();
	});
	const { stop } = stops();
	const want: Wanted = { folder: dir, choice: { path: 'pod/a', namespace: 'shop' }, keep: 60, stamp: '' };
	const [one, same] = await Promise.all([sessions.ensure(file, want, stop, () => undefined), sessions.ensure(file, { ...want }, stop, () => undefined)]);
	const other = await sessions.ensure(file, { ...want, config: '/other.json' }, stop, () => undefined);
	assert.equal(one, same);
	assert.notEqual(one.id, other.id);
	await until(() => one.recent.length === 1);
	await one.until(st => st.ports?.[0]?.published === '127.0.0.1:8080');
	const never = assert.rejects(one.until(() => false), code('vscode-session-ended'));
	await sessions.stop(file, one.id);
	await never;
	await until(() => !sessions.running.includes(one));
	const again = await sessions.ensure(file, want, stop, () => undefined);
	assert.notEqual(again.id, one.id);
	assert.deepEqual(sessions.running, [other, again]);
	assert.equal(await sessions.has(want), true);

	// Another configuration: the old session goes, unless something runs in it.
	const changedWish = { ...want, stamp: 'later' };
	assert.equal(await sessions.has(changedWish), false);
	const later = await sessions.ensure(file, changedWish, stop, () => undefined);
	await until(() => !sessions.running.includes(again));
	fs.writeFileSync(path.join(dir, 'sessions', 'busy'), '');
	const last = await sessions.ensure(file, { ...want, stamp: 'last' }, stop, () => undefined);
	assert.deepEqual(sessions.running, [other, later, last]);
	for (const s of [other, later, last]) {
		await sessions.stop(file, s.id);
	}
	await until(() => sessions.running.length === 0);
	assert.equal(fs.readFileSync(path.join(dir, 'sessions', 'started'), 'utf8').trim().split('\n').length, 5);
});

test('a start that fails is tried again the next time', async () => {
	const file = program('fails-first', 'd=$(dirname "$0"); [ -e "$d/tried" ] && exit 9; : >"$d/tried"; exit 8');
	const sessions = new Sessions(() => undefined);
	const { stop } = stops();
	for (const why of ['8', '9']) {
		await assert.rejects(sessions.ensure(file, { folder: dir, keep: 1, stamp: '' }, stop, () => undefined), (err: unknown) => err instanceof Failure && err.what.endsWith(why));
	}
});
