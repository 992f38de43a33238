// What this workspace has chosen; it survives the window.

import * as vscode from 'vscode';
import { Choice, remember } from './targets';

export class State {
	private readonly heard = new vscode.EventEmitter<void>();
	readonly onChange = this.heard.event;

	constructor(private readonly memento: vscode.Memento) {}

	get on(): boolean {
		return this.memento.get('on') ?? vscode.workspace.getConfiguration('mirrord').get('enabledByDefault', false);
	}
	setOn(on: boolean): Promise<void> {
		return this.set('on', on);
	}

	get choice(): Choice | undefined {
		return this.memento.get('choice');
	}
	get recent(): Choice[] {
		return this.memento.get('recent', []);
	}
	async setChoice(c: Choice): Promise<void> {
		await this.memento.update('recent', remember(this.recent, c));
		await this.set('choice', c);
	}

	// configs are the files that were chosen, by folder.
	config(folder: string): string | undefined {
		return this.memento.get<Record<string, string>>('configs', {})[folder];
	}
	setConfig(folder: string, file: string | undefined): Promise<void> {
		return this.set('configs', { ...this.memento.get<Record<string, string>>('configs', {}), [folder]: file });
	}

	private async set(key: string, value: unknown): Promise<void> {
		await this.memento.update(key, value);
		this.heard.fire();
	}
}
