// Which of the last requests a filter would match: asked of the program, above the filter
// in its file.

import * as path from 'node:path';
import * as vscode from 'vscode';
import { asked } from './activity';
import { run } from './cli';
import { isConfig } from './diagnostics';
import { Sessions } from './sessions';

export class FilterLens implements vscode.CodeLensProvider {
	provideCodeLenses(doc: vscode.TextDocument): vscode.CodeLens[] {
		if (!isConfig(doc.uri.fsPath)) {
			return [];
		}
		const at = doc.getText().split('\n').findIndex(l => /\bhttp_filter\b/.test(l));
		return at < 0 ? [] : [new vscode.CodeLens(new vscode.Range(at, 0, at, 0), { command: 'mirrord.matches', title: 'Which of the last requests match?', arguments: [doc.uri] })];
	}
}

// showMatches lists them, with what the filter says of each.
export async function showMatches(file: string, sessions: Sessions, program: string): Promise<void> {
	const s = sessions.running.at(-1);
	const all = asked(sessions.running.flatMap(s => s.recent));
	if (!s || all.length === 0) {
		await vscode.window.showInformationMessage('mirrord: no request has come yet in a session of this window.');
		return;
	}
	const answers = await Promise.all(all.map(async a => {
		const args = ['explain', 'request', `${a.method} ${a.path}`, '-f', file, '-o', 'json', ...(a.port ? ['--port', String(a.port)] : []), ...(s.status.target ? ['-t', s.status.target] : [])];
		const [answer] = JSON.parse(await run(program, args, { cwd: path.dirname(file) }));
		const matches: boolean = answer.note?.startsWith('the filter matches') ?? false;
		return { matches, label: `${matches ? '$(check)' : '$(circle-slash)'} ${a.method} ${a.path}`, description: answer.where as string, detail: answer.note as string };
	}));
	answers.sort((a, b) => Number(b.matches) - Number(a.matches)); // the latest first among equals
	await vscode.window.showQuickPick(answers, { title: 'mirrord: by method and path; headers and bodies are not remembered', matchOnDetail: true });
}
