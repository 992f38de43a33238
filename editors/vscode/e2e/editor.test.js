// The extension as a user meets it: a VS Code in a browser, a pod on the cluster.

const assert = require('node:assert/strict');
const { execFileSync, spawn, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { chromium } = require('playwright-core');

const limit = 30_000;
const size = { width: 1400, height: 900 };
const [program, ...first] = process.env.KUBECTL.split(' ');
const namespace = `vscode-${Date.now()}`;
const kubectl = (...args) => execFileSync(program, [...first, '-n', namespace, ...args], { encoding: 'utf8', input: '' });
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'mirrord-vscode-e2e-'));
const workspace = path.join(dir, 'shop');
const extensions = ['--extensions-dir', path.join(dir, 'extensions')];
const servers = [];
let browser, page, env;

// until waits until f gives something.
async function until(what, f, patience = limit) {
	for (const end = Date.now() + patience; ; await new Promise(r => setTimeout(r, 100))) {
		const got = await f();
		if (got) {
			return got;
		}
		if (Date.now() > end) {
			throw new Error(`it does not come to this: ${what}`);
		}
	}
}

async function freePort() {
	const s = net.createServer().listen(0, '127.0.0.1');
	await new Promise(r => s.on('listening', r));
	const { port } = s.address();
	await new Promise(r => s.close(r));
	return port;
}

const picture = name => page.screenshot({ path: path.join(process.env.PICTURES, `${name}.png`) });

// scene is a test; of one that fails there is a picture. Each begins where the one
// before has ended, so that one failure is the last.
let failed;
function scene(name, f) {
	test(name, async () => {
		assert.equal(failed, undefined, 'not tried: an earlier scene failed');
		try {
			await f();
		} catch (err) {
			failed = name;
			await picture(`failed ${name}`);
			throw err;
		}
	});
}

// command runs one of the palette's.
async function command(name) {
	await page.keyboard.press('F1');
	await page.locator('.quick-input-widget input').first().fill(`>${name}`);
	await page.locator('.quick-input-list .monaco-list-row').filter({ hasText: name }).first().click();
}

// open shows a file of the workspace, at a line if it is named with one.
async function open(file) {
	await page.keyboard.press('Control+P');
	await page.locator('.quick-input-widget input').first().fill(file);
	await page.locator('.quick-input-list .monaco-list-row').filter({ hasText: file.split(':')[0] }).first().waitFor();
	await page.keyboard.press('Enter');
	await page.locator('.tab.active').filter({ hasText: file.split(':')[0] }).first().waitFor();
}

// pick chooses from what the editor lists behind a word: debug NAME, task NAME.
async function pick(word, name) {
	await page.keyboard.press('Control+P');
	await page.locator('.quick-input-widget input').first().fill(`${word} ${name}`);
	await page.locator('.quick-input-list .monaco-list-row').filter({ hasText: name }).first().click();
}

async function launch(name) {
	await pick('debug', name);
	await page.locator('.debug-toolbar').waitFor();
}

async function stop() {
	await page.keyboard.press('Shift+F5');
	await page.locator('.debug-toolbar').waitFor({ state: 'hidden' });
}

// stopsAt asks the pod until its request stops at a breakpoint here; answer waits for
// what it is told afterwards.
async function stopsAt(url) {
	let answer;
	await until(`a request for ${url} stops`, () => {
		answer = said(asks(url));
		return Promise.race([page.locator('.codicon-debug-stackframe').first().waitFor({ timeout: 10_000 }).then(() => true, () => false), answer.then(() => false)]);
	});
	return { answer: () => answer };
}

// goesOn leaves a breakpoint.
const goesOn = () => page.keyboard.press('F5');

// noToasts takes the notifications away that are shown.
async function noToasts() {
	await command('Notifications: Clear All Notifications');
	await page.locator('.notification-toast').first().waitFor({ state: 'hidden' });
}

// noTerminals ends what runs in terminals.
async function noTerminals() {
	await command('Terminal: Kill All Terminals');
	await page.locator('.terminal-wrapper').first().waitFor({ state: 'hidden' });
}

// sessions are those that run, as the program says.
const sessions = () => JSON.parse(execFileSync(process.env.MIRRORD, ['session', 'ls', '-o', 'json'], { encoding: 'utf8', env }));

const inWorkspace = (file, has) => until(`${file} is as ${has}`, () => fs.existsSync(path.join(workspace, file)) && has.test(fs.readFileSync(path.join(workspace, file), 'utf8')));

const statusBar = () => page.locator('[id="mirrord-go.mirrord-go.mirrord"]').innerText();

// asks is a request to the pod from another one.
const asks = url => spawn(program, [...first, '-n', namespace, 'exec', 'client', '--', 'curl', '-sS', '--max-time', '60', `http://${podIP}:8080${url}`], { stdio: ['ignore', 'pipe', 'inherit'] });
const said = child => new Promise(resolve => {
	let text = '';
	child.stdout.on('data', d => text += d);
	child.on('close', () => resolve(text.trim()));
});
let podIP;

// serve starts a VS Code with a directory for its data, and gives the workspace's address.
async function serve(data, ...args) {
	const port = await freePort();
	servers.push(spawn(process.env.CODE_NODE, [process.env.CODE_SERVER, '--auth', 'none', '--bind-addr', `127.0.0.1:${port}`, '--user-data-dir', path.join(dir, data), ...extensions,
		'--disable-telemetry', '--disable-update-check', ...args, workspace], { env, stdio: ['ignore', fs.openSync(path.join(dir, `${data}.log`), 'w'), 'inherit'], detached: true }));
	await until('code-server answers', () => fetch(`http://127.0.0.1:${port}/healthz`).then(r => r.ok, () => false));
	return `http://127.0.0.1:${port}/?folder=${workspace}`;
}

before(async () => {
	execFileSync(program, [...first, 'create', 'namespace', namespace]);
	kubectl('apply', '-f', path.join(__dirname, 'target.yaml'));
	kubectl('run', 'client', '--image=debian:1', '--restart=Never', '--command', '--', 'sleep', 'infinity');
	kubectl('wait', '--for=condition=Available', '--timeout=120s', 'deployment/shop');
	kubectl('wait', '--for=condition=Ready', '--timeout=120s', 'pod/client');
	podIP = kubectl('get', 'pods', '-l', 'app=shop', '-o', 'jsonpath={.items[0].status.podIP}');

	const mirrord = path.join(dir, 'bin', 'mirrord'); // as somebody has it, and as pictures show it
	fs.mkdirSync(path.dirname(mirrord));
	fs.copyFileSync(process.env.MIRRORD, mirrord);
	fs.cpSync(path.join(__dirname, 'workspace'), workspace, { recursive: true });
	execFileSync(process.execPath, [path.join(__dirname, '../node_modules/typescript/bin/tsc'), '--sourceMap', '--outDir', 'out', '--module', 'commonjs', '--target', 'es2022',
		'--typeRoots', path.join(__dirname, '../node_modules/@types'), '--types', 'node', 'parent.ts'], { cwd: workspace });
	fs.mkdirSync(path.join(workspace, '.mirrord'));
	fs.writeFileSync(path.join(workspace, '.mirrord', 'mirrord.json'), JSON.stringify({ feature: { network: { incoming: 'steal' } } }, null, 2));
	fs.writeFileSync(path.join(workspace, '.mirrord', 'other.yaml'), 'feature:\n  network:\n    incoming:\n      accept_timeout: 5\n      \n');
	fs.writeFileSync(path.join(workspace, '.mirrord', 'filter.json'), '{"feature": {"network": {"incoming": {"mode": "steal", "http_filter": {"path_filter": "^/cart"}}}}}\n');
	fs.writeFileSync(path.join(workspace, '.mirrord', 'own.toml'), 'target = "deployment/shop"\n\n[feature]\nhostname = true\n\n[feature.network]\nincoming = false\n\n[feature.env.override]\nCOLOUR = "its own"\n\n[feature.fs]\n\n');
	const settings = {
		User: { 'workbench.startupEditor': 'none', 'workbench.secondarySideBar.defaultVisibility': 'hidden', 'remote.autoForwardPorts': false },
		Machine: { 'mirrord.binaryPath': mirrord },
	};
	for (const [whose, values] of Object.entries(settings)) {
		fs.mkdirSync(path.join(dir, 'user', whose), { recursive: true });
		fs.writeFileSync(path.join(dir, 'user', whose, 'settings.json'), JSON.stringify(values));
	}
	const kubeconfig = path.join(dir, 'kubeconfig');
	fs.writeFileSync(kubeconfig, fs.readFileSync(process.env.KUBECONFIG, 'utf8'));
	execFileSync(program, [...first, 'config', `--kubeconfig=${kubeconfig}`, 'set-context', '--current', `--namespace=${namespace}`]);
	env = { ...process.env, HOME: dir, KUBECONFIG: kubeconfig, XDG_RUNTIME_DIR: '' };
	execFileSync(process.env.CODE_NODE, [process.env.CODE_SERVER, ...extensions, '--install-extension', process.env.VSIX], { env, stdio: 'ignore' });
	const url = await serve('user', '--disable-workspace-trust');
	browser = await chromium.launch({
		executablePath: '/usr/bin/chromium',
		args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
	});
	page = await browser.newPage({ viewport: size });
	page.setDefaultTimeout(limit);
	await page.goto(url);
	await page.locator('.monaco-workbench').waitFor();
	await until('the status bar has the item', () => statusBar().catch(() => ''));
});

after(async () => {
	await browser?.close();
	for (const server of servers) {
		try {
			process.kill(-server.pid, 'SIGTERM');
		} catch {
			// it has ended
		}
	}
	execFileSync(program, [...first, 'delete', 'namespace', namespace, '--wait=false']);
	fs.rmSync(dir, { recursive: true, force: true, maxRetries: 10 });
});

scene('off at first, and turned on', async () => {
	assert.match(await statusBar(), /mirrord: off/);
	assert.match(await page.locator('[id="mirrord-go.mirrord-go.mirrord"] a').getAttribute('aria-label'), /^mirrord is off/);
	await page.setViewportSize({ width: 1400, height: 2000 }); // for the list to show all
	await command('Developer: Show Running Extensions');
	const took = async name => Number(/Activation: (\d+)ms/.exec(await page.locator('.editor-instance .monaco-list-row').filter({ hasText: name }).first().innerText())?.[1]);
	const [own, other] = [await took('mirrord'), await took('JSON Language Features')];
	console.log(`activation: ${own} ms; of JSON Language Features ${other} ms`);
	assert.ok(own < other);
	await page.setViewportSize(size);
	await page.keyboard.press('Escape'); // the list is shown above the window
	await command('mirrord: Turn On or Off for This Workspace');
	await until('it is on', async () => /mirrord: on/.test(await statusBar()));
	await picture('status-bar');
});

scene('a target is chosen from the list, and Escape starts nothing', async () => {
	await page.keyboard.press('F5');
	await page.locator('.quick-input-list .monaco-list-row').filter({ hasText: 'deployment/shop' }).first().waitFor();
	await page.keyboard.press('Escape');
	await page.locator('.quick-input-widget').waitFor({ state: 'hidden' });
	assert.equal(await page.locator('.debug-toolbar').isVisible(), false);
	assert.equal(await page.locator('.notification-toast').count(), 0);

	await command('mirrord: Choose Target');
	await page.locator('.quick-input-list .monaco-list-row').filter({ hasText: 'deployment/shop' }).first().waitFor();
	await picture('targets');
	await page.locator('.quick-input-widget input').first().fill('deployment/shop');
	await page.keyboard.press('Enter');
	await until('the status bar names it', async () => /deployment\/shop in /.test(await statusBar()));
});

scene('a launch is cancelled while its session starts', async () => {
	await pick('debug', 'Shop');
	const starting = signal => spawnSync('pkill', [signal, '-f', `^${path.join(dir, 'bin', 'mirrord')} session start`]).status === 0;
	await until('it starts', () => starting('-STOP')); // and stands still until it is cancelled; its session may be ready by then
	await page.locator('.notification-toast').getByText('Cancel').click();
	await until('it goes on', () => starting('-CONT'));
	await page.locator('.notification-toast').first().waitFor({ state: 'hidden' });
	assert.equal(await page.locator('.debug-toolbar').isVisible(), false);
	await until('nothing is left', () => sessions().length === 0 && kubectl('get', 'jobs', '-o', 'name') === '');
});

scene('F5: a request to the pod stops at a breakpoint here', async () => {
	await open('server.js:6');
	await page.locator('.view-lines').filter({ hasText: 'createServer' }).first().waitFor();
	await page.keyboard.press('F9');
	await page.locator('.codicon-debug-breakpoint').first().waitFor();
	await page.keyboard.press('F5');
	await page.locator('.debug-toolbar').waitFor();
	assert.match(await statusBar(), /steal/);
	await until('the program listens', async () => /listening on 8080/.test(await page.locator('.repl').innerText().catch(() => '')));
	let asked = await stopsAt('/cart');
	const variables = page.locator('.debug-variables');
	if (!/answer/.test(await variables.innerText())) {
		await variables.locator('.monaco-list-row').filter({ hasText: 'Local' }).first().click(); // a scope may be folded
	}
	await until('the variables are shown', async () => /local \/cart colour=green/.test(await variables.innerText()));
	await picture('breakpoint');
	await goesOn();
	assert.equal(await asked.answer(), 'local /cart colour=green');

	const view = page.locator('.pane:has(> .pane-header[aria-label^="mirrord"])');
	await view.locator('.pane-header').click();
	await until('the session view has the request', async () => /Requests\s*[1-9]/.test(await view.innerText()));
	assert.match(await view.innerText(), /deployment\/shop[\s\S]*link ok[\s\S]*port 8080[\s\S]*steal[\s\S]*open at 127\.0\.0\.1:8080/);
	assert.doesNotMatch(await view.innerText(), /port 53\d+\s+steal/); // the debugger's own
	await view.locator('.monaco-list-row').filter({ hasText: 'Requests' }).first().click();
	await until('the request is listed', async () => /GET \/cart → 200/.test(await view.innerText()));
	await page.setViewportSize({ ...size, height: 1300 }); // there is room for all of it
	await picture('session');
	await page.setViewportSize(size);
	await view.locator('.pane-header').click();

	await page.keyboard.press('Control+Shift+F5');
	await until('it is restarted', async () => (await page.locator('.repl').innerText()).split('listening on 8080').length >= 2);
	asked = await stopsAt('/again');
	await goesOn();
	assert.equal(await asked.answer(), 'local /again colour=green');
	await stop();
	await until('the pod answers itself again', async () => await said(asks('/after')) === 'remote /after');
});

scene('an npm script, the terminal and a task join the same session', async () => {
	await launch('By npm');
	const asked = await stopsAt('/npm');
	await goesOn();
	assert.equal(await asked.answer(), 'local /npm colour=green');
	await stop();

	await command('mirrord: Open Terminal in the Session');
	await page.locator('.terminal-wrapper.active .xterm-cursor-layer, .terminal-wrapper.active .xterm-screen').first().waitFor();
	await page.keyboard.type('echo "co""lour=$COLOUR" >seen; hostname >>seen\n');
	await inWorkspace('seen', /^colour=green\nshop-/);
	await picture('terminal');

	await command('Create New Terminal (With Profile)');
	await page.locator('.quick-input-list .monaco-list-row').getByText('mirrord', { exact: true }).click();
	await until('there are two terminals', async () => await page.locator('.terminal-tabs-entry').filter({ hasText: 'mirrord: deployment/shop' }).count() === 2);
	await page.keyboard.type('hostname >profile\n');
	await inWorkspace('profile', /^shop-/);

	await page.keyboard.type('node --inspect server.js\n');
	await until('the inspector is open here', () => fetch('http://127.0.0.1:9229/json/version').then(r => r.ok, () => false));
	await launch('Attached');
	const attached = await stopsAt('/attached');
	await goesOn();
	assert.equal(await attached.answer(), 'local /attached colour=green');
	await stop();
	await noTerminals();

	await pick('task', 'ask around');
	await inWorkspace('asked', /^colour=green\n$/);
	await noTerminals();
});

scene('a child in TypeScript, whose parent runs in a terminal', async () => {
	await open('parent.ts:8');
	await page.locator('.view-lines').filter({ hasText: 'createServer' }).first().waitFor();
	await page.keyboard.press('F9');
	await until('there are two breakpoints', async () => await page.locator('.debug-breakpoints .monaco-list-row').filter({ hasText: /parent\.ts|server\.js/ }).count() === 2);
	await launch('Child in TypeScript');
	const asked = await stopsAt('/ts');
	await page.keyboard.press('F10');
	await until('it stands in the next line', async () => /parent\.ts\s*9:/.test(await page.locator('.debug-call-stack').innerText()));
	assert.match((await page.locator('.tab.active').first().innerText()).replaceAll('\n', ''), /parent\.ts/);
	await picture('typescript');
	await goesOn();
	assert.equal(await asked.answer(), 'child colour=green /ts');
	await stop();
	await until('the pod answers itself again', async () => await said(asks('/after')) === 'remote /after');
	await noTerminals();
});

scene('two programs of a compound share a session', async () => {
	await launch('Both');
	await inWorkspace('began', /^shop-\S+ colour=green\n$/);
	const asked = await stopsAt('/both');
	await goesOn();
	assert.equal(await asked.answer(), 'local /both colour=green');
	assert.equal(sessions().length, 1);
	await stop();
});

scene('a launch with a configuration of its own has a session of its own', async () => {
	await launch('By its own configuration');
	await inWorkspace('began', /^shop-\S+ colour=its own\n$/);
	assert.equal(sessions().length, 2);
	assert.match(await statusBar(), new RegExp(`deployment/shop in ${namespace} · off`));
	await stop();
});

scene('a launch says itself that it wants no session, and one runs without the debugger', async () => {
	await launch('Without a session');
	if (!await page.locator('.repl').isVisible()) {
		await page.keyboard.press('Control+Shift+Y'); // the panel shows something else
	}
	await until('it runs outside of the session', async () => /node .*server\.js/.test(await page.locator('.repl').innerText()));
	assert.doesNotMatch(await page.locator('.repl').innerText(), /mirrord exec/);
	await until('it listens', () => fetch('http://127.0.0.1:8080/', { signal: AbortSignal.timeout(1000) }).then(() => true, e => e.name === 'TimeoutError'));
	assert.equal(await said(asks('/alone')), 'remote /alone');
	await stop();

	await launch('Shop'); // for the next to be the one that was chosen last
	await stop();
	await page.keyboard.press('Control+F5');
	await page.locator('.debug-toolbar').waitFor();
	await until('it gets the pod\'s requests', async () => await said(asks('/run')) === 'local /run colour=green');
	await stop();
});

scene('what cannot be started says why, once, and starts nothing', async () => {
	for (const [name, why] of [['Nowhere', /nowhere/], ['Page', /php/]]) {
		await pick('debug', name);
		const toasts = page.locator('.notification-toast').filter({ hasText: 'To do' });
		await toasts.first().waitFor();
		assert.match(await toasts.first().innerText(), why);
		await until('it is the only one', async () => await page.locator('.notification-toast').count() === 1); // the progress goes
		assert.equal(await page.locator('.debug-toolbar').isVisible(), false);
		await picture(`refused-${name.toLowerCase()}`);
		await noToasts();
	}
});

scene('the last requests that a filter would match are told above it', async () => {
	const file = path.join(workspace, '.mirrord', 'filter.json');
	await page.keyboard.press('Control+P');
	await page.locator('.quick-input-widget input').first().fill(path.basename(file));
	await page.locator('.quick-input-list .monaco-list-row').filter({ hasText: 'filter.json' }).first().waitFor();
	await page.keyboard.press('Enter');
	await page.getByText('Which of the last requests match?').click();
	await page.locator('.quick-input-list .monaco-list-row').filter({ hasText: 'GET /cart' }).filter({ hasText: 'your program' }).first().waitFor();
	await page.locator('.quick-input-list .monaco-list-row').filter({ hasText: 'GET /run' }).filter({ hasText: 'the target only' }).first().waitFor();
	await picture('matches');
	await page.keyboard.press('Escape');
});

scene('a mistake of the configuration is shown at its line, and starts nothing', async () => {
	const file = path.join(workspace, '.mirrord', 'mirrord.json'), good = fs.readFileSync(file, 'utf8');
	fs.writeFileSync(file, '{\n  "feature": {\n    "network": {\n      "incoming": "stael"\n    }\n  }\n}\n');
	await page.keyboard.press('F5');
	const told = page.locator('.notifications-toasts').filter({ hasText: 'the configuration has a mistake' });
	await told.waitFor();
	assert.match(await told.innerText(), /mirrord\.json:4:19: feature\.network\.incoming/);
	await told.getByText('Open Configuration').click();
	await page.locator('.squiggly-error').first().waitFor();
	await page.locator('.view-line span').filter({ hasText: /^"stael"$/ }).last().hover();
	await page.locator('.monaco-hover').filter({ hasText: 'did you mean' }).first().waitFor();
	await picture('mistake');
	await page.keyboard.press('Escape');
	assert.equal(await page.locator('.debug-toolbar').isVisible(), false);
	fs.writeFileSync(file, good);
});

// completed opens a file at a place and waits until a word is suggested there.
async function completed(place, word) {
	await page.keyboard.press('Control+P');
	await page.locator('.quick-input-widget input').first().fill(place);
	await page.locator('.quick-input-list .monaco-list-row').filter({ hasText: place.split(':')[0] }).first().waitFor();
	await page.keyboard.press('Enter');
	await page.locator('.editor-instance .view-lines').filter({ hasText: 'incoming' }).first().waitFor();
	await page.keyboard.press('Control+Space');
	await page.locator('.suggest-widget.visible .monaco-list-row').filter({ hasText: word }).first().waitFor();
}

scene('keys of a configuration in YAML and TOML are completed and explained', async () => {
	await completed('other.yaml:5:7', 'http_filter');
	await picture('completion');
	await page.keyboard.press('Escape');
	await page.locator('.view-line span').filter({ hasText: /^accept_timeout$/ }).first().hover();
	await page.locator('.monaco-hover').filter({ hasText: 'as at a breakpoint' }).first().waitFor();

	await completed('own.toml:13:1', 'not_found');
	await page.keyboard.press('Escape');
	await page.locator('.view-line span').getByText('hostname').first().hover({ position: { x: 10, y: 8 } });
	await page.locator('.monaco-hover').filter({ hasText: 'the host name is the target' }).first().waitFor();
});

scene('an end of the session leaves nothing', async () => {
	await command('mirrord: Stop Session');
	await until('nothing is in the cluster', () => kubectl('get', 'jobs', '-o', 'name') === '');
	await until('nothing runs here', () => !execFileSync('ps', ['axww', '-o', 'args'], { encoding: 'utf8' }).split('\n').some(l => l.includes(dir) && l.includes('mirrord-helper')));
});

scene('a workspace that nobody trusts is left alone until somebody does', async () => {
	await page.goto(await serve('other'));
	await page.locator('.statusbar').getByText('Restricted Mode').waitFor();
	await page.keyboard.press('F1');
	await page.locator('.quick-input-widget input').first().fill('>mirrord: ');
	await page.locator('.quick-input-list').getByText('No matching').waitFor();
	await page.keyboard.press('Escape');
	assert.equal(await page.locator('[id="mirrord-go.mirrord-go.mirrord"]').count(), 0);

	await command('Workspaces: Manage Workspace Trust');
	await page.getByRole('button', { name: 'Trust', exact: true }).click();
	await until('the status bar has the item', () => statusBar().catch(() => ''));
});
