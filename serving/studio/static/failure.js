// Why something that was asked for was not done.
export class Failure extends Error {
  constructor(status, code, message, places = []) {
    super(message);
    this.status = status; // as in HTTP; 0: nobody answers
    this.code = code;
    this.places = places; // of the faces to choose from
  }
  // Nobody draws. What a model that is there could not do (502, 504) it may never do: that is told, and no loss.
  get lost() { return this.status === 0 || (this.status === 503 && this.code !== 'unavailable'); }
}
