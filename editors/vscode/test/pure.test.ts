import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { test } from 'node:test';
import { Activity, asked, keep, line } from '../src/activity';
import { checkVersion } from '../src/cli';
import { Failure, failureOf, parseEvent, placeOf } from '../src/failure';
import { Configuration, plain, wishOf, wraps } from '../src/launch';
import { before, portOf, Rewritten } from '../src/rewrite';
import { flags } from '../src/sessions';
import { Listing, nameOf, remember, rows } from '../src/targets';

test('a failure is what the program said last', () => {
	const lines = ['{"level":"step","code":"x","text":"went on"}', 'a stray word', '{"level":"error","code":"no-kubeconfig","text":"there is none","facts":{"why":"looked","do":"export it"}}'];
	const events = lines.map(parseEvent).filter(e => e !== undefined);
	assert.equal(events.length, 2);
	const f = failureOf(events, '', 1);
	assert.deepEqual([f.code, f.what, f.why, f.todo], ['no-kubeconfig', 'there is none', 'looked', 'export it']);
	assert.deepEqual([failureOf([], 'panic: oh\n', 2).why, failureOf([], '', null).what], ['panic: oh', 'mirrord has ended with code none']);
});

test('places', () => {
	for (const [text, want] of [
		['/w/.mirrord/mirrord.json:3:12: target: wrong', { file: '/w/.mirrord/mirrord.json', line: 3, column: 12, text: 'target: wrong' }],
		['shop.yaml:7: is wrong', { file: 'shop.yaml', line: 7, column: 1, text: 'is wrong' }],
		['there is no kubeconfig', undefined],
		['', undefined],
	] as const) {
		assert.deepEqual(placeOf(text), want);
	}
});

test('versions', () => {
	for (const good of ['mirrord 0.1.0-dev linux/amd64 go1.26.3', 'mirrord v0.1.0', 'mirrord 1.0.0', 'mirrord 0.2.0']) {
		checkVersion('/bin/mirrord', good);
	}
	for (const bad of ['mirrord 0.0.9', 'GNU bash', '']) {
		assert.throws(() => checkVersion('/bin/mirrord', bad), (err: unknown) => err instanceof Failure && err.code === 'vscode-version');
	}
});

const launch = (more: object = {}): Configuration => ({ type: 'node', name: 'Shop', request: 'launch', ...more });

test('which launches run in a session', () => {
	for (const [c, on, want] of [
		[launch(), true, true],
		[launch(), false, false],
		[launch({ mirrord: { enabled: true } }), false, true],
		[launch({ mirrord: { enabled: false } }), true, false],
		[launch({ env: { MIRRORD_ACTIVE: '1' } }), false, true],
		[launch({ env: { MIRRORD_ACTIVE: '0' } }), true, false],
		[launch({ mirrord: { enabled: true }, env: { MIRRORD_ACTIVE: '0' } }), false, true],
		[launch({ mirrord: 'yes' }), true, true],
		[launch({ request: 'attach' }), true, false],
		[launch({ type: 'chrome' }), true, false],
		[launch({ type: 'coreclr' }), true, true], // which is refused, and not run outside
		[launch({ __pendingTargetId: '7' }), true, false],
	] as const) {
		assert.equal(wraps(c as Configuration, on), want, JSON.stringify(c));
	}
});

test('what a launch says itself', () => {
	assert.deepEqual(wishOf(launch({ mirrord: { target: 'pod/a', config: 'a.json' } })), { enabled: undefined, target: 'pod/a', config: 'a.json' });
	assert.deepEqual(wishOf(launch({ env: { MIRRORD_CONFIG_FILE: 'b.json' } })), { enabled: undefined, config: 'b.json' });
	assert.deepEqual(plain(launch({ mirrord: {} })), launch());
});

test('flags of a session', () => {
	assert.deepEqual(flags({ folder: '/w', keep: 60, stamp: '' }), ['--agent-ttl', '60']);
	assert.deepEqual(flags({ folder: '/w', keep: 60, stamp: '', choice: { path: 'pod/a', namespace: 'shop', context: 'dev' }, config: '/w/m.json' }),
		['--agent-ttl', '60', '-t', 'pod/a', '-n', 'shop', '--context', 'dev', '-f', '/w/m.json']);
	assert.deepEqual(flags({ folder: '/w', keep: 60, stamp: '', choice: { path: '', namespace: 'shop' } }), ['--agent-ttl', '60', '-n', 'shop']);
});

const list: Listing = {
	current_namespace: 'shop', context: 'dev', namespaces: ['shop', 'other'],
	targets: [
		{ path: 'deployment/api', kind: 'deployment', available: true, ready: 2, wanted: 3, ports: [80, 81] },
		{ path: 'pod/api-1', kind: 'pod', available: true, ready: 1, wanted: 1, ports: null },
	],
};

test('what can be chosen', () => {
	const here = { path: 'pod/api-1', namespace: 'shop', context: 'dev' };
	const all = rows(list, [here, { path: 'pod/gone', namespace: 'shop', context: 'dev' }, { path: 'deployment/api', namespace: 'other', context: 'dev' }]);
	assert.deepEqual(all.map(r => r.separator ? `--${r.label}` : r.choice!.path), ['--recent', 'pod/api-1', '--deployment', 'deployment/api', '--pod', 'pod/api-1', '--', '']);
	assert.equal(all[3].description, '2/3 ready · ports 80, 81');
	assert.deepEqual(all[1].choice, here);
	assert.deepEqual(rows({ current_namespace: 'x', targets: [] }, []).map(r => r.choice?.path), [undefined, '']);
});

test('what was chosen', () => {
	const at = (path: string): { path: string; namespace: string } => ({ path, namespace: 'shop' });
	assert.deepEqual(remember([at('a'), at('b')], at('b')), [at('b'), at('a')]);
	assert.equal(remember(Array.from({ length: 10 }, (_, i) => at(String(i))), at('new')).length, 10);
	assert.deepEqual([nameOf(undefined), nameOf(at('')), nameOf(at('pod/a'))], ['no target chosen', 'no target in shop', 'pod/a in shop']);
});

test('tasks of a session run after the launch\'s own', () => {
	const task = { label: 'mirrord: build Shop', command: 'go', args: ['build'] };
	const r: Rewritten = { configuration: launch({ preLaunchTask: task.label }), tasks: [task], notes: [], wrapped: true };
	assert.deepEqual(before(r, launch({ preLaunchTask: 'own' })), { ...r, configuration: launch(), tasks: [{ ...task, dependsOn: 'own' }] });
	const none: Rewritten = { ...r, tasks: [], configuration: launch({ preLaunchTask: 'own' }) };
	assert.deepEqual(before(none, launch({ preLaunchTask: 'own' })), none);
});

test('where a task in the background serves', () => {
	assert.equal(portOf({ label: '', command: '', args: [], problemMatcher: { background: { endsPattern: 'open here at 127\\.0\\.0\\.1:20815' } } }), 20815);
});

const happened = (more: object): Activity => ({ at: '', session: 's', kind: 'request', flow: 'incoming', method: 'GET', path: '/a', port: 80, mode: 'steal', ...more });

test('the last requests, each once', () => {
	const many = Array.from({ length: 20 }, (_, i) => happened({ path: `/${i}` }));
	assert.deepEqual(asked([happened({}), happened({ kind: 'lookup' }), happened({}), happened({ flow: 'outgoing', path: '/out' }), happened({ mode: undefined, path: '/of-this-machine' }), happened({ method: 'PUT' })]).map(a => `${a.method} ${a.path}`), ['GET /a', 'PUT /a']);
	assert.equal(asked(many).length, 10);
});

test('activities in words', () => {
	for (const [a, want] of [
		[happened({ status: 200, ms: 12.3, mode: 'steal' }), 'GET /a → 200 12.3 ms steal'],
		[happened({ kind: 'lookup', name: 'db.shop', what: 'found' }), 'db.shop found'],
		[happened({ kind: 'file', what: 'missing', path: '/etc/x', where: 'remote', error: 'ENOENT' }), 'missing /etc/x remote ENOENT'],
		[happened({ kind: 'connection', what: 'opened', address: '10.0.0.1', port: 5432, where: 'remote' }), 'opened 10.0.0.1 5432 remote'],
	] as const) {
		assert.equal(line(a), want);
	}
});

test('what is kept of what went on', () => {
	const recent: Activity[] = [];
	keep(recent, { at: '', session: '', kind: 'request', path: '/first' });
	for (let i = 0; i < 500; i++) {
		keep(recent, { at: '', session: '', kind: 'file', name: String(i) });
	}
	assert.equal(recent.length, 201);
	assert.equal(recent[0].name, '499');
	assert.equal(recent.at(-1)?.path, '/first');
});

test('every failure is explained', () => {
	const top = path.join(__dirname, '../../../..'), src = path.join(top, 'editors/vscode/src');
	const documents = ['docs/vscode.md', 'docs/errors.md'].map(f => fs.readFileSync(path.join(top, f), 'utf8')).join('\n');
	const codes = fs.readdirSync(src).flatMap(f => [...fs.readFileSync(path.join(src, f), 'utf8').matchAll(/new Failure\('([a-z-]+)'/g)].map(m => m[1]));
	assert.ok(codes.length > 10);
	for (const code of new Set(codes)) {
		assert.match(documents, new RegExp(`^### \`${code}\`$`, 'm'));
	}
});
