// Launches: a debug session's program joins a session of mirrord. VS Code asks this
// provider last (type *, with variables filled in), so that what other extensions have
// found (javaExec, the interpreter) is wrapped as well.

import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import * as vscode from 'vscode';
import { Cancelled, run } from './cli';
import { Failure } from './failure';
import { Configuration, plain, wishOf, wraps } from './launch';
import { chooseTarget } from './picker';
import { portOf, rewrite, Task } from './rewrite';
import { Session, Sessions, Wanted } from './sessions';
import { State } from './state';
import { Choice } from './targets';
import { Log, tellOf } from './tell';

export class Launcher implements vscode.DebugConfigurationProvider {
	constructor(private readonly state: State, private readonly sessions: Sessions, private readonly log: Log, readonly program: () => Promise<string>) {}

	async resolveDebugConfigurationWithSubstitutedVariables(folder: vscode.WorkspaceFolder | undefined, c: vscode.DebugConfiguration, token?: vscode.CancellationToken):
		Promise<vscode.DebugConfiguration | undefined> {
		if (!wraps(c, this.state.on)) {
			return plain(c);
		}
		try {
			if (!folder) {
				throw new Failure('vscode-no-folder', 'mirrord needs a folder: its configuration and the session\'s directory are there', '', 'open the folder of the program');
			}
			return await this.wrap(folder.uri.fsPath, c, token);
		} catch (err) {
			tellOf(err, this.log);
			return undefined; // the launch ends, and nothing is opened
		}
	}

	private async wrap(folder: string, c: Configuration, token?: vscode.CancellationToken): Promise<vscode.DebugConfiguration> {
		const file = await this.program();
		const s = await this.session(folder, c, token);
		const r = await rewrite(file, s.id, folder, c, token);
		r.notes.forEach(n => this.log.line(`${c.name}: ${n}`));
		for (const t of r.tasks) {
			await this.runTask(folder, t, s);
		}
		return r.configuration;
	}

	// session gives the one that a launch is to join.
	async session(folder: string, c?: Configuration, token?: vscode.CancellationToken): Promise<Session> {
		const file = await this.program();
		const wish = c ? wishOf(c) : {};
		const config = wish.config ? path.resolve(folder, wish.config) : this.state.config(folder);
		const choice = await this.choice(file, folder, wish.target, config);
		const keep = vscode.workspace.getConfiguration('mirrord').get('keepSession', 600);
		const wanted: Wanted = { folder, choice, config, keep, stamp: await stampOf(folder, config) };
		const start = (stop: vscode.CancellationToken, told: (text: string) => void): Promise<Session> => this.sessions.ensure(file, wanted, stop, e => {
			this.log.event(e);
			if (e.level === 'step' || e.level === 'info') {
				told(e.text);
			}
		});
		if (await this.sessions.has(wanted)) {
			return start(either(token), () => undefined);
		}
		return vscode.window.withProgress({ location: vscode.ProgressLocation.Notification, title: 'mirrord', cancellable: true },
			(progress, cancel) => start(either(cancel, token), message => progress.report({ message })));
	}

	// choice gives the target: what the launch says, the configuration, the workspace, or
	// somebody who is asked. Undefined leaves it to the configuration.
	private async choice(file: string, folder: string, target: string | undefined, config: string | undefined): Promise<Choice | undefined> {
		const args = ['verify-config', '--json', '--ide', ...(config ? ['-f', config] : [])];
		const verified = JSON.parse(await run(file, args, { cwd: folder, codes: [2] }));
		if (verified.type !== 'Success') {
			const why: string = (verified.errors ?? []).join('\n');
			throw new Failure('config-invalid', 'the configuration has a mistake', absolute(folder, why), 'correct it there');
		}
		const chosen = this.state.choice;
		if (target) {
			return { path: target, namespace: chosen?.namespace ?? verified.config?.namespace ?? '', context: chosen?.context };
		}
		if (verified.config?.path) {
			return undefined;
		}
		if (chosen) {
			return chosen;
		}
		const asked = await chooseTarget(file, this.state, folder);
		if (!asked) {
			throw new Cancelled();
		}
		return asked;
	}

	private async runTask(folder: string, t: Task, s: Session): Promise<void> {
		if (t.dependsOn) {
			const all = await vscode.tasks.fetchTasks();
			const first = all.find(o => o.name === t.dependsOn || `${o.source}: ${o.name}` === t.dependsOn);
			if (!first) {
				throw new Failure('vscode-no-task', `there is no task ${t.dependsOn}, which is to run before the launch`, '', 'name one of tasks.json in preLaunchTask');
			}
			await ended(first);
		}
		const at = vscode.workspace.getWorkspaceFolder(vscode.Uri.file(folder)) ?? vscode.TaskScope.Workspace;
		const own = new vscode.Task({ type: 'mirrord', command: t.command }, at, t.label, 'mirrord', new vscode.ProcessExecution(t.command, t.args, { cwd: t.options?.cwd ?? folder, env: t.options?.env }));
		own.presentationOptions = { reveal: vscode.TaskRevealKind.Silent };
		if (!t.isBackground) {
			await ended(own);
			return;
		}
		const port = portOf(t);
		const execution = await vscode.tasks.executeTask(own);
		await Promise.race([
			s.until(st => st.ports?.some(p => p.port === port && p.published) ?? false),
			over(execution).then(code => {
				throw new Failure('vscode-task-failed', `the task "${t.label}" has ended with code ${code ?? 'none'}`, 'the launch connects to what it serves', 'look at its terminal');
			}),
		]);
	}
}

// either is cancelled when one of them is.
function either(...tokens: (vscode.CancellationToken | undefined)[]): vscode.CancellationToken {
	const source = new vscode.CancellationTokenSource();
	tokens.forEach(t => t?.onCancellationRequested(() => source.cancel()));
	return source.token;
}

// stampOf changes with the configuration's files.
async function stampOf(folder: string, config: string | undefined): Promise<string> {
	const files = config ? [config] : ['json', 'yaml', 'yml', 'toml'].map(ending => path.join(folder, '.mirrord', `mirrord.${ending}`));
	return JSON.stringify(await Promise.all(files.map(f => fs.stat(f).then(st => [st.mtimeMs, st.size], () => null))));
}

// ended runs a task until its process has ended well.
async function ended(t: vscode.Task): Promise<void> {
	const code = await over(await vscode.tasks.executeTask(t));
	if (code !== 0) {
		throw new Failure('vscode-task-failed', `the task "${t.name}" has ended with code ${code ?? 'none'}`, 'the launch needs what it makes', 'look at its terminal');
	}
}

// over waits for the end of a task's process.
function over(execution: vscode.TaskExecution): Promise<number | undefined> {
	return new Promise(resolve => {
		const heard = vscode.tasks.onDidEndTaskProcess(e => {
			if (e.execution === execution) {
				heard.dispose();
				resolve(e.exitCode);
			}
		});
	});
}

// absolute puts the folder before the path with which a text begins.
function absolute(folder: string, text: string): string {
	return text === '' || path.isAbsolute(text) ? text : path.join(folder, text);
}
