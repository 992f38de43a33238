// How failures are shown: one notification for a launch, with what can be done about it.
// The rest goes to the log.

import * as vscode from 'vscode';
import { Cancelled } from './cli';
import { Event, Failure, placeOf } from './failure';

export const docs = 'https://github.com/mirrord-go/mirrord/blob/main/docs/';

export class Log {
	private readonly channel = vscode.window.createOutputChannel('mirrord', { log: true });

	event(e: Event): void {
		const text = [e.text, e.facts?.why, e.facts?.do].filter(t => t).join('\n  ');
		switch (e.level) {
		case 'error': this.channel.error(text); break;
		case 'warning': this.channel.warn(text); break;
		case 'detail': this.channel.debug(text); break;
		default: this.channel.info(text);
		}
	}
	line(text: string): void {
		this.channel.info(text);
	}
	show(): void {
		this.channel.show(true);
	}
	dispose(): void {
		this.channel.dispose();
	}
}

// helpOf is where a failure is explained: those of this extension in its own document.
function helpOf(code: string): string {
	return `${docs}${code.startsWith('vscode-') ? 'vscode.md' : 'errors.md'}#${code}`;
}

// A Remedy is a button.
export interface Remedy {
	title: string;
	do: () => unknown;
}

// remedies are what helps against a failure; the first is the likeliest.
export function remedies(f: Failure, log: Log): Remedy[] {
	if (f.code === 'needs-linux') {
		return [
			...(process.platform === 'win32' ? [{ title: 'Reopen in WSL', do: () => vscode.commands.executeCommand('remote-wsl.reopenInWSL') }] : []),
			{ title: 'Reopen in Container', do: () => vscode.commands.executeCommand('remote-containers.reopenInContainer') },
			{ title: 'Connect by SSH', do: () => vscode.commands.executeCommand('opensshremotes.openEmptyWindow') },
		];
	}
	const all: Remedy[] = [];
	const at = placeOf(f.why.split('\n')[0]);
	if (at) {
		all.push({ title: 'Open Configuration', do: () => openAt(at.file, at.line, at.column) });
	}
	if (/target|pod|namespace/.test(f.code)) {
		all.push({ title: 'Other Target', do: () => vscode.commands.executeCommand('mirrord.chooseTarget') });
	}
	if (!at) {
		all.push({ title: 'Doctor', do: () => vscode.commands.executeCommand('mirrord.doctor') });
	}
	all.push({ title: 'Help', do: () => vscode.env.openExternal(vscode.Uri.parse(helpOf(f.code))) });
	all.push({ title: 'Copy', do: () => vscode.env.clipboard.writeText([f.what, f.why, f.todo, f.code].filter(t => t).join('\n')) });
	all.push({ title: 'Log', do: () => log.show() });
	return all;
}

// openAt shows a place of a file. Lines and columns begin with 1.
export async function openAt(file: string, line: number, column: number): Promise<void> {
	const at = new vscode.Position(line - 1, column - 1);
	await vscode.window.showTextDocument(vscode.Uri.file(file), { selection: new vscode.Range(at, at) });
}

// tellOf shows what went wrong; that somebody has cancelled is no failure.
export function tellOf(err: unknown, log: Log): void {
	if (err instanceof Cancelled) {
		return;
	}
	const f = err instanceof Failure ? err : new Failure('vscode-failed', String(err));
	log.event({ level: 'error', code: f.code, text: f.what, facts: { why: f.why, do: f.todo } });
	const text = `mirrord: ${[f.what, f.why].filter(t => t).join(': ')}.${f.todo && ` To do: ${f.todo}`}`;
	const all = remedies(f, log);
	void vscode.window.showErrorMessage(text, ...all.map(r => r.title)).then(title => all.find(r => r.title === title)?.do());
}
