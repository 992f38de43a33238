// What VS Code calls: it puts the parts together. Little is done until it is used.

import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import * as vscode from 'vscode';
import { checkVersion, locate, run } from './cli';
import { Completion } from './completion';
import { Launcher } from './debug';
import { Diagnostics, isConfig } from './diagnostics';
import { Failure } from './failure';
import { FilterLens, showMatches } from './matches';
import { chooseTarget } from './picker';
import { Port, Session, Sessions } from './sessions';
import { State } from './state';
import { StatusBar } from './statusbar';
import { nameOf } from './targets';
import { docs, Log, tellOf } from './tell';
import { SessionView } from './view';

let ending: (() => Promise<void>) | undefined;

export function activate(context: vscode.ExtensionContext): void {
	const log = new Log();
	const state = new State(context.workspaceState);
	let checked = '';
	const program = async (): Promise<string> => {
		if (process.platform !== 'linux') {
			throw new Failure('needs-linux', 'programs run in a session on Linux only', `this is ${process.platform}`, 'open the folder in WSL, in a dev container or on a Linux machine by SSH; the extension works there');
		}
		const setting = vscode.workspace.getConfiguration('mirrord').get('binaryPath', '');
		const file = locate(setting, process.env.PATH, context.asAbsolutePath('bin/mirrord'));
		if (file !== checked) {
			checkVersion(file, await run(file, ['version']));
			log.line(`the program is ${file}`);
			checked = file;
		}
		return file;
	};
	const sessions = new Sessions(() => {
		bar.show();
		view.changed();
	});
	const bar = new StatusBar(state, sessions);
	const view = new SessionView(sessions);
	const launcher = new Launcher(state, sessions, log, program);
	const diagnostics = new Diagnostics(program);
	const folder = (): string => {
		const open = vscode.window.activeTextEditor?.document.uri;
		const f = (open && vscode.workspace.getWorkspaceFolder(open)) ?? vscode.workspace.workspaceFolders?.[0];
		if (!f) {
			throw new Failure('vscode-no-folder', 'no folder is open', '', 'open the folder of the program');
		}
		return f.uri.fsPath;
	};
	// shell is a terminal's, in the session.
	const shell = async (): Promise<vscode.TerminalOptions> => {
		const s = await launcher.session(folder());
		return { name: `mirrord: ${s.status.target ?? 'no target'}`, shellPath: await program(), shellArgs: ['exec', '--session', s.id, '--', vscode.env.shell], iconPath: new vscode.ThemeIcon('vm-running') };
	};
	const stop = async (n?: { session: Session }): Promise<void> => {
		const file = await program();
		await Promise.all((n ? [n.session] : sessions.running).map(s => sessions.stop(file, s.id)));
	};
	ending = stop;

	const commands: Record<string, (n: any) => unknown> = {
		menu: () => menu(state, sessions),
		toggle: () => state.setOn(!state.on),
		chooseTarget: async () => await chooseTarget(await program(), state, vscode.workspace.workspaceFolders?.[0]?.uri.fsPath),
		chooseConfig: () => chooseConfig(state, folder()),
		openConfig: () => openConfig(state, folder()),
		stopSession: stop,
		openPort: (n: { port: Port }) => vscode.env.openExternal(vscode.Uri.parse(`http://${n.port.published}`)),
		showLog: () => log.show(),
		doctor: async () => vscode.window.createTerminal({ name: 'mirrord doctor', shellPath: '/bin/sh', shellArgs: ['-c', '"$0" doctor; exec "${SHELL:-/bin/sh}"', await program()] }).show(),
		matches: async (file: vscode.Uri) => showMatches(file.fsPath, sessions, await program()),
		terminal: async () => vscode.window.createTerminal(await shell()).show(),
		program,
		session: async () => (await launcher.session(folder())).id,
		docs: () => vscode.env.openExternal(vscode.Uri.parse(`${docs}README.md`)),
	};
	for (const [name, f] of Object.entries(commands)) {
		context.subscriptions.push(vscode.commands.registerCommand(`mirrord.${name}`, async (n: unknown) => {
			try {
				return await f(n);
			} catch (err) {
				return tellOf(err, log);
			}
		}));
	}
	context.subscriptions.push(log, bar, diagnostics, new Completion(context.asAbsolutePath('schema.json')).register(), state.onChange(() => bar.show()),
		vscode.debug.registerDebugConfigurationProvider('*', launcher),
		vscode.languages.registerCodeLensProvider([{ scheme: 'file', pattern: '**/*.{json,yaml,yml,toml}' }], new FilterLens()),
		vscode.window.registerTreeDataProvider('mirrord.sessions', view),
		vscode.window.registerTerminalProfileProvider('mirrord.terminal', {
			provideTerminalProfile: async () => {
				try {
					return new vscode.TerminalProfile(await shell());
				} catch (err) {
					tellOf(err, log);
					return undefined;
				}
			},
		}),
		vscode.tasks.registerTaskProvider('mirrord', {
			provideTasks: () => [],
			resolveTask: asTask,
		}),
		vscode.workspace.onDidOpenTextDocument(d => diagnostics.check(d)),
		vscode.workspace.onDidSaveTextDocument(d => diagnostics.check(d)),
		vscode.workspace.onDidCloseTextDocument(d => diagnostics.forget(d)));
	vscode.workspace.textDocuments.forEach(d => void diagnostics.check(d));
}

// asTask gives what a task runs. It is asked for whenever tasks are listed: the session
// is there only when the task begins, and the editor fills in its variables.
function asTask(t: vscode.Task): vscode.Task {
	const { command, args, cwd } = t.definition;
	const run = new vscode.ProcessExecution('${command:mirrord.program}', ['exec', '--session', '${command:mirrord.session}', '--', command, ...(args ?? [])], { cwd });
	return new vscode.Task(t.definition, t.scope ?? vscode.TaskScope.Workspace, t.name, 'mirrord', run, t.problemMatchers);
}

// deactivate ends what this window has started.
export async function deactivate(): Promise<void> {
	await ending?.();
}

async function menu(state: State, sessions: Sessions): Promise<void> {
	const entry = (label: string, command: string, description = ''): vscode.QuickPickItem & { command: string } => ({ label, description, command });
	const chosen = await vscode.window.showQuickPick([
		entry(state.on ? '$(circle-slash) Turn Off' : '$(check) Turn On', 'mirrord.toggle', 'for this workspace'),
		entry('$(target) Choose Target…', 'mirrord.chooseTarget', nameOf(state.choice)),
		entry('$(settings-gear) Choose Configuration…', 'mirrord.chooseConfig'),
		entry('$(go-to-file) Open or Create Configuration', 'mirrord.openConfig'),
		...(sessions.running.length > 0 ? [
			entry('$(list-tree) Show Session', 'mirrord.sessions.focus', sessions.running.map(s => s.status.target ?? 'no target').join(', ')),
			entry('$(debug-stop) Stop Session', 'mirrord.stopSession', sessions.running.map(s => s.id).join(', ')),
		] : []),
		entry('$(terminal) Open Terminal in the Session', 'mirrord.terminal'),
		entry('$(output) Show Log', 'mirrord.showLog'),
		entry('$(pulse) Check Machine and Cluster', 'mirrord.doctor'),
		entry('$(settings) Settings', 'workbench.action.openSettings'),
		entry('$(book) Documentation', 'mirrord.docs'),
	], { title: `mirrord is ${state.on ? 'on' : 'off'}` });
	if (chosen) {
		await vscode.commands.executeCommand(chosen.command, ...(chosen.command === 'workbench.action.openSettings' ? ['mirrord'] : []));
	}
}

async function chooseConfig(state: State, folder: string): Promise<void> {
	const found = (await vscode.workspace.findFiles(new vscode.RelativePattern(folder, '**/*.{json,yaml,yml,toml}'), '**/node_modules/**')).filter(u => isConfig(u.fsPath));
	const none = { label: 'the folder\'s own', description: '.mirrord/mirrord.json, if there is one', file: undefined as string | undefined };
	const chosen = await vscode.window.showQuickPick([none, ...found.map(u => ({ label: path.relative(folder, u.fsPath), description: '', file: u.fsPath }))], { title: 'mirrord: configuration' });
	if (chosen) {
		await state.setConfig(folder, chosen.file);
	}
}

async function openConfig(state: State, folder: string): Promise<void> {
	const file = state.config(folder) ?? path.join(folder, '.mirrord', 'mirrord.json');
	try {
		await fs.mkdir(path.dirname(file), { recursive: true });
		await fs.writeFile(file, '{\n  "feature": {\n    "network": {\n      "incoming": "mirror"\n    }\n  }\n}\n', { flag: 'wx' });
	} catch (err) {
		if ((err as NodeJS.ErrnoException).code !== 'EEXIST') {
			throw err;
		}
	}
	await vscode.window.showTextDocument(vscode.Uri.file(file));
}
